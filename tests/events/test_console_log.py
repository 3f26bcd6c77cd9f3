"""A console log under a flood: bounded on disk, head and tail kept, nothing told wrongly."""

import os
import threading
from pathlib import Path

import pytest

from backends.console_log import HEAD_BYTES, TAIL_BYTES, ConsoleLog, Extent
from service.consoles.output import Piece, next_piece

LINE_BYTES = 16


def text(start: int, end: int) -> bytes:
    """What the log has from `start` on: each 16 bytes are their own offset."""
    first = start // LINE_BYTES
    lines = b"".join(b"%015d\n" % (n * LINE_BYTES) for n in range(first, end // LINE_BYTES + 1))
    return lines[start - first * LINE_BYTES :][: end - start]


def flood(path: Path, *, mib: int, log: ConsoleLog | None = None) -> None:
    """Appends as QEMU does; trims after every MiB where a log is given."""
    with path.open("ab", buffering=0) as file:
        for _ in range(mib):
            start = file.tell()
            file.write(text(start, start + (1 << 20)))
            if log is not None:
                log.trim()


@pytest.fixture
def log(tmp_path: Path) -> ConsoleLog:
    """A log that nothing was written to yet."""
    return ConsoleLog.new(tmp_path)


def allocated(log: ConsoleLog) -> int:
    return log.path.stat().st_blocks * 512


def test_flooded_log_is_bounded_on_disk(log: ConsoleLog) -> None:
    flood(log.path, mib=40)
    assert allocated(log) >= 40 << 20
    log.trim()
    assert allocated(log) <= HEAD_BYTES + TAIL_BYTES + (1 << 17)
    assert log.end() == 40 << 20


def test_log_stays_bounded_all_through_a_flood(log: ConsoleLog) -> None:
    bound = HEAD_BYTES + 2 * TAIL_BYTES + (1 << 17)
    for _ in range(20):
        flood(log.path, mib=2)
        log.trim()
        assert allocated(log) <= bound


def test_head_and_tail_are_kept_as_they_were_written(log: ConsoleLog) -> None:
    flood(log.path, mib=20)
    log.trim()
    head, tail = log.extents()
    end = 20 << 20
    assert (head.start, tail.end) == (0, end)
    assert head.end >= HEAD_BYTES
    assert tail.start <= end - TAIL_BYTES
    for extent in (head, tail):
        size = extent.end - extent.start
        assert log.read(extent.start, max_bytes=size).data == text(extent.start, extent.end)


def test_read_in_the_expired_range_begins_with_the_tail_and_says_what_is_gone(
    log: ConsoleLog,
) -> None:
    flood(log.path, mib=20)
    log.trim()
    head, tail = log.extents()
    chunk = log.read(head.end + 5, max_bytes=64)
    assert chunk.offset == tail.start
    assert chunk.expired == tail.start - head.end - 5
    assert chunk.data == text(tail.start, tail.start + 64)


def test_read_never_goes_over_the_edge_of_the_head(log: ConsoleLog) -> None:
    flood(log.path, mib=20)
    log.trim()
    head = log.extents()[0]
    chunk = log.read(head.end - 10, max_bytes=1 << 20)
    assert (chunk.offset, chunk.expired) == (head.end - 10, 0)
    assert chunk.data == text(head.end - 10, head.end)


def test_short_log_is_not_trimmed(log: ConsoleLog) -> None:
    flood(log.path, mib=2)
    log.trim()
    assert log.extents() == [Extent(0, 2 << 20)]


def test_bytes_that_expire_between_a_look_and_the_read_are_not_told_as_zeros(
    log: ConsoleLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    flood(log.path, mib=20)
    real_pread = os.pread

    def trimmed_before(descriptor: int, length: int, offset: int) -> bytes:
        log.trim()
        return real_pread(descriptor, length, offset)

    monkeypatch.setattr(os, "pread", trimmed_before)
    chunk = log.read(10 << 20, max_bytes=1 << 16)
    assert chunk.expired > 0
    assert chunk.data == text(chunk.offset, chunk.next_offset)


def test_reader_beside_a_flood_gets_true_bytes_or_is_told_that_they_expired(
    log: ConsoleLog,
) -> None:
    log.path.touch()
    writer = threading.Thread(target=flood, args=(log.path,), kwargs={"mib": 30, "log": log})
    writer.start()
    offset, taken, expired = 0, 0, 0
    while offset < 30 << 20:
        chunk = log.read(offset, max_bytes=1 << 16)
        assert chunk.offset == offset + chunk.expired
        assert chunk.data == text(chunk.offset, chunk.next_offset)
        offset, taken, expired = chunk.next_offset, taken + len(chunk.data), expired + chunk.expired
        assert writer.is_alive() or chunk.data or offset == log.end()
    writer.join()
    assert taken + expired == 30 << 20


def test_missing_log_is_empty(log: ConsoleLog) -> None:
    assert log.read(0, max_bytes=10).data == b""
    assert (log.end(), log.extents()) == (0, [])
    log.trim()


def test_log_that_went_with_its_instance_has_nothing_more(tmp_path: Path) -> None:
    """Whoever reads it is told that the instance has gone, not that the log is another one."""
    assert next_piece(ConsoleLog.new(tmp_path), 5) == Piece(5)
