"""Followers of console logs are woken: by writes, by a log made anew, by the daemon's stop."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from service.consoles.watch import ConsoleWatch

WAIT_S = 10.0


@pytest.fixture
async def watch() -> AsyncIterator[ConsoleWatch]:
    """A watch on the test's event loop."""
    made = ConsoleWatch()
    yield made
    made.close()


async def woken(changed: asyncio.Event) -> None:
    async with asyncio.timeout(WAIT_S):
        await changed.wait()
    changed.clear()


async def test_every_follower_is_woken_by_a_write(watch: ConsoleWatch, tmp_path: Path) -> None:
    log = tmp_path / "console.log"
    with watch.watching(log) as one, watch.watching(log) as other:
        log.write_bytes(b"line")
        await woken(one)
        await woken(other)


async def test_follower_that_stays_is_woken_when_another_has_gone(
    watch: ConsoleWatch, tmp_path: Path
) -> None:
    log = tmp_path / "console.log"
    with watch.watching(log) as stays:
        with watch.watching(log):
            pass
        log.write_bytes(b"line")
        await woken(stays)


async def test_follower_of_a_folder_made_anew_is_woken(watch: ConsoleWatch, tmp_path: Path) -> None:
    folder = tmp_path / "instance"
    folder.mkdir()
    with watch.watching(folder / "console.log") as of_the_old:
        shutil.rmtree(folder)
        await woken(of_the_old)
        folder.mkdir()
        with watch.watching(folder / "console.log") as of_the_new:
            (folder / "console.log").write_bytes(b"line")
            await woken(of_the_new)


async def test_watch_of_a_folder_that_has_gone_and_come_is_let_go(
    watch: ConsoleWatch, tmp_path: Path
) -> None:
    folder = tmp_path / "instance"
    folder.mkdir()
    with watch.watching(folder / "console.log"):
        shutil.rmtree(folder)
        folder.mkdir()
    with watch.watching(folder / "console.log") as changed:
        (folder / "console.log").write_bytes(b"line")
        await woken(changed)


async def test_missing_folder_is_no_error(watch: ConsoleWatch, tmp_path: Path) -> None:
    with watch.watching(tmp_path / "none" / "console.log") as changed:
        watch.wake_all()
        await woken(changed)


async def test_close_wakes_everyone_and_lets_them_go(tmp_path: Path) -> None:
    watch = ConsoleWatch()
    with watch.watching(tmp_path / "console.log") as changed:
        watch.close()
        await woken(changed)
    with watch.watching(tmp_path / "console.log"):
        pass
