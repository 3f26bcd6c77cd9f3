"""A console log keeps head and tail, gives back the middle, and never tells a wrong byte."""

import tempfile
import threading
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from backends.console_log import Chunk, ConsoleLog, Extent

KIB = 1024
HEAD, TAIL = 64 * KIB, 128 * KIB
BLOCK = 64 * KIB
LENGTHS = st.sampled_from([1, 100, 4 * KIB, 4 * KIB + 1, BLOCK - 1, BLOCK, 200 * KIB])


def written(start: int, length: int) -> bytes:
    """What a guest writes at an offset: telling where it stood, with runs of zeros in it."""
    words = range(start // 8, (start + length) // 8 + 1)
    row = b"".join(bytes(8) if word % 1000 < 600 else word.to_bytes(8, "big") for word in words)
    return row[start % 8 : start % 8 + length]


class Append:
    """QEMU's side of a log: it appends, whatever becomes of the file."""

    def __init__(self, path: Path) -> None:
        self.file = path.open("ab", buffering=0)
        self.end = 0

    def __call__(self, length: int) -> None:
        self.file.write(written(self.end, length))
        self.end += length


class LogModel(RuleBasedStateMachine):
    """Any order of appending, trimming and reading, beside what a log must still have."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.log = ConsoleLog(
            Path(self.folder.name) / "console.log", head_bytes=HEAD, tail_bytes=TAIL
        )
        self.append = Append(self.log.path)

    def teardown(self) -> None:
        self.append.file.close()
        self.folder.cleanup()

    @rule(length=LENGTHS)
    def append_some(self, length: int) -> None:
        self.append(length)

    @rule()
    def trim(self) -> None:
        self.log.trim()
        allocated = self.log.path.stat().st_blocks * 512
        assert allocated <= HEAD + 2 * TAIL + BLOCK

    @rule(offset=st.integers(0, 2**40), max_bytes=LENGTHS)
    def read_anywhere(self, offset: int, max_bytes: int) -> None:
        offset %= self.append.end + 100
        chunk = self.log.read(offset, max_bytes=max_bytes)
        assert chunk.offset == offset + chunk.expired
        assert chunk.data == written(chunk.offset, len(chunk.data))
        assert len(chunk.data) <= max_bytes
        assert chunk.data or chunk.offset >= self.append.end

    @invariant()
    def nothing_is_forgotten_of_the_length(self) -> None:
        assert self.log.end() == self.append.end

    @invariant()
    def extents_are_in_order_and_hold_head_and_tail(self) -> None:
        extents, end = self.log.extents(), self.append.end
        edges = [edge for extent in extents for edge in (extent.start, extent.end)]
        assert edges == sorted(set(edges))
        assert (extents[0].start, extents[-1].end) == (0, end) if end else not extents
        assert not end or extents[0].end >= min(HEAD, end)
        assert not end or extents[-1].start <= max(end - TAIL, 0)

    @invariant()
    def reading_on_from_the_start_tells_the_extents(self) -> None:
        told: list[Extent] = []
        chunk = self.log.read(0, max_bytes=BLOCK)
        while chunk.data:
            assert chunk.data == written(chunk.offset, len(chunk.data))
            adjacent = told and told[-1].end == chunk.offset
            start = told.pop().start if adjacent else chunk.offset
            told.append(Extent(start, chunk.next_offset))
            chunk = self.log.read(chunk.next_offset, max_bytes=BLOCK)
        assert told == self.log.extents()


TestLogModel = LogModel.TestCase
TestLogModel.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)


@pytest.fixture
def log(tmp_path: Path) -> ConsoleLog:
    return ConsoleLog.new(tmp_path)


def test_log_that_nothing_was_written_to_is_empty(log: ConsoleLog) -> None:
    log.trim()
    assert (log.end(), log.extents(), log.read(7, max_bytes=9)) == (0, [], Chunk(7, b"", 0))


def test_log_is_found_again_by_its_id(log: ConsoleLog, tmp_path: Path) -> None:
    assert ConsoleLog.found_in(tmp_path) is None
    log.path.touch()
    found = ConsoleLog.found_in(tmp_path)
    assert found is not None
    assert (found.path, found.log_id) == (log.path, log.log_id)


def test_two_logs_have_two_ids(tmp_path: Path) -> None:
    assert ConsoleLog.new(tmp_path).log_id != ConsoleLog.new(tmp_path).log_id


def test_symbolic_link_in_the_place_of_a_log_is_not_followed(
    log: ConsoleLog, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_bytes(b"canary")
    log.path.symlink_to(tmp_path / "secret")
    with pytest.raises(OSError, match="symbolic links"):
        log.read(0, max_bytes=100)


def test_expired_bytes_are_skipped_and_counted(tmp_path: Path) -> None:
    log = ConsoleLog(tmp_path / "console.log", head_bytes=HEAD, tail_bytes=TAIL)
    with (append := Append(log.path)).file:
        append(10 * TAIL)
    log.trim()
    head, tail = log.extents()
    assert (head, tail) == (Extent(0, HEAD), Extent(9 * TAIL, 10 * TAIL))
    chunk = log.read(HEAD + 5, max_bytes=100)
    assert (chunk.offset, chunk.expired) == (tail.start, tail.start - HEAD - 5)
    assert chunk.data == written(tail.start, 100)


def test_space_that_a_filesystem_took_ahead_is_not_trimmed(tmp_path: Path) -> None:
    log = ConsoleLog(tmp_path / "console.log", head_bytes=HEAD, tail_bytes=TAIL)
    with (append := Append(log.path)).file:
        append(HEAD)
        # XFS does so by itself for files that grow; the size stays what was written.
        keep_size = 0x01
        assert fallocate(append.file.fileno(), keep_size, 0, 4 * (HEAD + TAIL))
    log.trim()
    assert log.extents() == [Extent(0, HEAD)]


def fallocate(descriptor: int, mode: int, start: int, length: int) -> bool:
    """fallocate(2), which Python does not have with a mode."""
    import ctypes

    call = ctypes.CDLL(None).fallocate
    return bool(call(descriptor, mode, ctypes.c_longlong(start), ctypes.c_longlong(length)) == 0)


def test_reader_beside_writer_and_trimmer_gets_only_what_was_written(tmp_path: Path) -> None:
    log = ConsoleLog(tmp_path / "console.log", head_bytes=HEAD, tail_bytes=TAIL)
    append = Append(log.path)
    done = threading.Event()

    def write() -> None:
        for _ in range(800):
            append(8 * KIB + 3)
        done.set()

    def trim() -> None:
        while not done.is_set():
            log.trim()

    threads = [threading.Thread(target=write), threading.Thread(target=trim)]
    for thread in threads:
        thread.start()
    offset, read = 0, 0
    while not done.is_set() or offset < append.end:
        chunk = log.read(offset, max_bytes=BLOCK)
        assert chunk.data == written(chunk.offset, len(chunk.data))
        offset, read = chunk.next_offset, read + len(chunk.data)
    for thread in threads:
        thread.join()
    append.file.close()
    assert offset == append.end
    assert read > 0
