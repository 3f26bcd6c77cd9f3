"""The event log on disk: numbers outlive the daemon, a damaged log is told as another epoch."""

import os
import sqlite3
import stat
from pathlib import Path

import pytest

from service.events import log as log_module
from service.events.log import EventLog


def filled(path: Path, *, through: int = 20) -> str:
    """A log with events 1 to `through`; gives its epoch."""
    log = EventLog(path)
    log.append([(number, b"event %d" % number) for number in range(1, through + 1)])
    log.close()
    return log.epoch


def test_numbers_and_epoch_outlive_the_daemon(tmp_path: Path) -> None:
    epoch = filled(tmp_path / "events.sqlite")
    log = EventLog(tmp_path / "events.sqlite")
    assert (log.epoch, log.last_sequence, log.oldest()) == (epoch, 20, 1)
    assert log.read(after=18, limit=10) == [(19, b"event 19"), (20, b"event 20")]
    log.close()


def test_only_the_last_events_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_module, "RETAINED_EVENTS", 5)
    filled(tmp_path / "events.sqlite")
    log = EventLog(tmp_path / "events.sqlite")
    assert (log.oldest(), log.last_sequence) == (16, 20)
    log.close()


def test_log_of_an_earlier_boot_is_another_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    epoch = filled(tmp_path / "events.sqlite")
    boot_id = tmp_path / "boot_id"
    boot_id.write_text("another boot\n", encoding="ascii")
    monkeypatch.setattr(log_module, "_BOOT_ID", boot_id)
    log = EventLog(tmp_path / "events.sqlite")
    assert log.epoch != epoch
    assert (log.last_sequence, log.oldest()) == (0, 1)
    log.close()


@pytest.mark.parametrize("damage", ["header", "middle", "truncated", "not a database"])
def test_damaged_log_begins_anew_under_another_epoch(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "events.sqlite"
    epoch = filled(path, through=2000)
    size = path.stat().st_size
    with path.open("r+b") as file:
        if damage == "header":
            file.write(os.urandom(100))
        elif damage == "middle":
            file.seek(size // 2 // 4096 * 4096)
            file.write(os.urandom(4096))
        elif damage == "truncated":
            file.truncate(size // 2)
        else:
            file.truncate(0)
            file.write(b"this is not a database, " * 1000)
    log = EventLog(path)
    assert log.epoch != epoch
    assert (log.last_sequence, log.oldest()) == (0, 1)
    log.append([(1, b"first")])
    log.close()
    assert path.with_suffix(".damaged").exists()
    assert path.stat().st_mode & 0o777 == 0o600


def test_log_is_sound_after_it_began_anew(tmp_path: Path) -> None:
    path = tmp_path / "events.sqlite"
    log = EventLog(path)
    before = log.epoch
    log.append([(1, b"old")])
    log.begin_anew()
    modes = {stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}
    assert modes == {0o600}
    log.append([(1, b"new")])
    log.close()
    assert log.epoch != before
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT event FROM events").fetchall() == [(b"new",)]
    connection.close()
