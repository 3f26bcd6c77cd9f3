"""Console logs stay within their bounds without a daemon."""

import subprocess
import sys
from pathlib import Path

import pytest
from inotify_simple import INotify, flags

from service.console_keeper import trim_all

MIB = 1 << 20


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A log of 8 MiB, all of it on disk."""
    folder = tmp_path / "instances" / "11111111-1111-4111-8111-111111111111"
    folder.mkdir(parents=True)
    path = folder / "console.22222222-2222-4222-8222-222222222222.log"
    path.write_bytes(b"x" * 8 * MIB)
    return path


def allocated(path: Path) -> int:
    return path.stat().st_blocks * 512


def test_logs_are_bounded_and_keep_their_offsets(tmp_path: Path, log: Path) -> None:
    assert trim_all(tmp_path) == []
    assert log.stat().st_size == 8 * MIB
    assert allocated(log) < 2 * MIB


def test_one_log_that_cannot_be_trimmed_keeps_no_other_from_it(tmp_path: Path, log: Path) -> None:
    broken = log.with_name("console.link.log")
    broken.symlink_to(log)
    assert [failure.startswith(f"{broken}: ") for failure in trim_all(tmp_path)] == [True]
    assert allocated(log) < 2 * MIB


def test_keeper_trims_until_it_is_told_to_stop(tmp_path: Path, log: Path) -> None:
    command = [sys.executable, "-m", "service.console_keeper", f"--state-dir={tmp_path}"]
    with INotify() as changes:
        changes.add_watch(log, flags.MODIFY)
        with subprocess.Popen(command) as keeper:
            assert changes.read(timeout=20_000), "not trimmed in 20 s"
            keeper.terminate()
        assert keeper.returncode == 0
    assert allocated(log) < 2 * MIB
