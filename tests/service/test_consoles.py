"""Parts of the console service by themselves: tokens, an open port, recordings."""

import asyncio
import json
import os
import pty
import sqlite3
import termios
import time
import tty
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

import pytest
from virtrpc.v1 import console_pb2 as pb

from backends.errors import NoRoomError
from service.consoles.port import SerialPort
from service.consoles.recording import Recording, Recordings
from service.consoles.tokens import Access, TokenRefusedError, Tokens

ACCESS = Access(instance_id="i", kind=pb.CONSOLE_TYPE_VNC, boot="1", caller="test")


@pytest.fixture
def tokens(tmp_path: Path) -> Iterator[Tokens]:
    made = Tokens(tmp_path / "tokens.sqlite")
    yield made
    made.close()


def soon() -> float:
    return time.time() + 60


def test_token_opens_once(tokens: Tokens) -> None:
    token = tokens.mint(ACCESS, expires_at=soon())
    assert tokens.spend(token) == ACCESS
    with pytest.raises(TokenRefusedError):
        tokens.spend(token)


def test_expired_token_is_refused(tokens: Tokens) -> None:
    for token in (
        tokens.mint(ACCESS, expires_at=time.time() - 0.001),
        (kept := tokens.mint(ACCESS, expires_at=soon())),
    ):
        if token == kept:
            tokens.expire(kept, at=time.time() - 0.001)
        with pytest.raises(TokenRefusedError):
            tokens.spend(token)


def test_tokens_are_voided_by_instance(tokens: Tokens) -> None:
    other = Access(instance_id="j", kind=pb.CONSOLE_TYPE_VNC, boot="1", caller="test")
    voided, good = tokens.mint(ACCESS, expires_at=soon()), tokens.mint(other, expires_at=soon())
    assert set(tokens.instances()) == {"i", "j"}
    tokens.revoke("i")
    with pytest.raises(TokenRefusedError):
        tokens.spend(voided)
    assert tokens.spend(good) == other


def test_tokens_of_an_instance_are_bounded(tokens: Tokens) -> None:
    first = tokens.mint(ACCESS, expires_at=soon())
    last = [tokens.mint(ACCESS, expires_at=soon() + 60) for _ in range(256)][-1]
    with pytest.raises(TokenRefusedError):
        tokens.spend(first)
    assert tokens.spend(last) == ACCESS


def test_tokens_outlive_the_daemon_as_hashes(tmp_path: Path) -> None:
    path = tmp_path / "tokens.sqlite"
    before = Tokens(path)
    token = before.mint(ACCESS, expires_at=soon())
    before.close()
    assert token.partition(".")[2].encode() not in path.read_bytes()
    after = Tokens(path)
    assert after.spend(token) == ACCESS
    after.close()


def test_damaged_file_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "tokens.sqlite"
    path.write_bytes(b"SQLite format 3\0" + bytes(range(256)) * 16)
    tokens = Tokens(path)
    assert tokens.spend(tokens.mint(ACCESS, expires_at=soon())) == ACCESS
    tokens.close()


def test_file_of_another_schema_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "tokens.sqlite"
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE token (something TEXT)")
    database.close()
    tokens = Tokens(path)
    assert tokens.spend(tokens.mint(ACCESS, expires_at=soon())) == ACCESS
    tokens.close()


@dataclass
class Machine:
    """QEMU's end of a serial port, and ours."""

    master: int
    port: SerialPort

    def end(self) -> None:
        """The machine is switched off."""
        os.close(self.master)
        self.master = -1


@pytest.fixture
async def machine() -> AsyncIterator[Machine]:
    master, slave = pty.openpty()
    tty.setraw(slave, termios.TCSANOW)
    os.set_blocking(slave, False)
    made = Machine(master, SerialPort(slave))
    yield made
    made.port.close()
    if made.master >= 0:
        made.end()


async def test_input_reaches_the_machine(machine: Machine) -> None:
    assert await machine.port.write(b"typed\r") == 6
    assert os.read(machine.master, 100) == b"typed\r"


async def test_machine_that_floods_waits_for_nobody(machine: Machine) -> None:
    """What it says is drained as it comes, and kept nowhere."""
    piece, written = b"x" * 4096, 0
    os.set_blocking(machine.master, False)
    async with asyncio.timeout(20):
        while written < 4 << 20:
            try:
                written += os.write(machine.master, piece)
            except BlockingIOError:
                await asyncio.sleep(0)
    assert not machine.port.closed


async def test_machine_that_does_not_read_makes_the_writer_wait(machine: Machine) -> None:
    writing = asyncio.ensure_future(machine.port.write(b"x" * (1 << 20)))
    done, _ = await asyncio.wait({writing}, timeout=0.1)
    assert not done
    taken = 0
    async with asyncio.timeout(20):
        while taken < 1 << 20:
            taken += len(await asyncio.to_thread(os.read, machine.master, 1 << 16))
        assert await writing == 1 << 20


async def test_end_of_the_machine_ends_the_write(machine: Machine) -> None:
    writing = asyncio.ensure_future(machine.port.write(b"x" * (1 << 20)))
    await asyncio.wait({writing}, timeout=0.05)
    machine.end()
    async with asyncio.timeout(20):
        assert await writing < 1 << 20
    assert machine.port.closed
    assert await machine.port.write(b"x") == 0


async def test_close_ends_the_write(machine: Machine) -> None:
    writing = asyncio.ensure_future(machine.port.write(b"x" * (1 << 20)))
    await asyncio.wait({writing}, timeout=0.05)
    machine.port.close()
    assert await writing < 1 << 20


def events(folder: Path, name: str) -> list[list[object]]:
    lines = (folder / name).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines][1:]


def test_recording_stops_at_its_bound_and_says_so(tmp_path: Path) -> None:
    folder = tmp_path / "recordings"
    recording = Recordings(folder, max_age_s=60, max_bytes=100).new("i", "me", None)
    for _ in range(5):
        recording.shown(b"o" * 60)
    recording.typed("é".encode()[:1])
    recording.typed("é".encode()[1:])
    recording.close()
    kinds = [(kind, text) for _, kind, text in events(folder, recording.name)]
    assert kinds[:2] == [("o", "o" * 60)] * 2
    assert kinds[2][0] == "m"
    assert kinds[3:] == [("i", "é")]


def test_recording_is_bounded_as_it_is_on_disk(tmp_path: Path) -> None:
    """Bytes that JSON has to escape take six there."""
    folder = tmp_path / "recordings"
    recording = Recordings(folder, max_age_s=60, max_bytes=100_000).new("i", "me", None)
    for _ in range(1_000):
        recording.shown(b"\x00\xff" * 500)
    recording.close()
    assert (folder / recording.name).stat().st_size < 110_000


def test_recording_on_a_full_disk_says_so_and_nothing_else() -> None:
    recording = Recording(FileIO("/dev/full", "w"), "full", max_bytes=100)
    for say in (recording.shown, recording.typed):
        with pytest.raises(NoRoomError) as refused:
            say(b"x")
        assert refused.value.reason == "RECORDING_UNWRITABLE"
    recording.close()


def test_old_recordings_are_removed(tmp_path: Path) -> None:
    recordings = Recordings(tmp_path / "recordings", max_age_s=3600, max_bytes=100)
    recordings.remove_old()
    old, new = recordings.new("i", "me", None), recordings.new("i", "me", None)
    for recording in (old, new):
        recording.close()
    path = tmp_path / "recordings" / old.name
    os.utime(path, (0, time.time() - 3601))
    recordings.remove_old()
    assert [found.name for found in path.parent.iterdir()] == [new.name]
