"""A console log that goes from host to host keeps its bytes, their offsets, and says its gaps."""

from pathlib import Path

from backends.console_log import ConsoleLog, Extent
from backends.migration import console

LOG_ID = "11111111-1111-4111-8111-111111111111"


def moved(log: ConsoleLog, folder: Path, late: bytes = b"") -> ConsoleLog:
    """The log at another host; `late` is printed at the source after the preparation."""
    folder.mkdir()
    told = log.end()
    arrived = ConsoleLog.of(folder, log_id=log.log_id)
    console.expect(arrived.path, told)
    append(log, late)
    console.take(arrived, console.last_pieces(log), begins=console.begin(told))
    return arrived


def append(log: ConsoleLog, text: bytes) -> None:
    with log.path.open("ab") as file:
        file.write(text)


def text_of(log: ConsoleLog) -> bytes:
    """All that is kept, from the beginning."""
    text, offset = b"", 0
    while (chunk := log.read(offset, max_bytes=1 << 16)).data:
        text, offset = text + chunk.data, chunk.next_offset
    return text


def test_text_goes_over_several_hosts_whole(tmp_path: Path) -> None:
    log = ConsoleLog.of(tmp_path, log_id=LOG_ID)
    append(log, b"one ")
    log = moved(log, tmp_path / "b", late=b"two ")
    append(log, b"three ")
    log = moved(log, tmp_path / "c", late=b"four ")
    append(log, b"five")
    assert text_of(log) == b"one two three four five"
    assert log.log_id == LOG_ID


def test_offsets_stay_and_gaps_are_expired(tmp_path: Path) -> None:
    log = ConsoleLog.of(tmp_path, log_id=LOG_ID)
    append(log, b"before")
    log = moved(log, tmp_path / "b")
    begins = log.end()
    append(log, b"after")
    assert log.extents() == [Extent(0, 6), Extent(begins, begins + 5)]
    assert log.read(2, max_bytes=100).data == b"fore"
    chunk = log.read(6, max_bytes=100)
    assert (chunk.offset, chunk.data, chunk.expired) == (begins, b"after", begins - 6)


def test_only_the_last_of_a_long_log_goes_along(tmp_path: Path) -> None:
    log = ConsoleLog.of(tmp_path, log_id=LOG_ID)
    append(log, b"x" * (2 * console.CARRIED_BYTES) + b"end")
    end = log.end()
    log = moved(log, tmp_path / "b")
    assert log.extents()[0] == Extent(end - console.CARRIED_BYTES, end)


def test_flood_beyond_the_hole_stays_behind(tmp_path: Path) -> None:
    log = ConsoleLog.of(tmp_path, log_id=LOG_ID)
    append(log, b"x")
    begins = console.begin(1)
    log = moved(log, tmp_path / "b", late=b"y" * (begins + 100))
    append(log, b"after")
    assert log.read(begins, max_bytes=100).data == b"after"
