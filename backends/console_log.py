"""The log of an instance's serial console: one sparse file, bounded on disk.

The hypervisor process itself appends to the file, so nothing is lost while the
daemon is away, and a byte's offset in the file is its offset in the log for
ever. What lies between the kept head and tail is given back to the filesystem
by punching a hole (fallocate(2)); where the holes are the filesystem knows
(lseek(2), SEEK_DATA), so there is no second book to keep in step.

    0        head          expired            tail             end
    |########|.............................|###################|→ appended

A log that has come from another host also has gaps (backends.migration.console): ranges
that no host ever wrote. Filesystems know holes by the block only, so gaps stand in a small
file beside the log.
"""

import contextlib
import ctypes
import errno
import os
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

HEAD_BYTES = 64 * 1024
TAIL_BYTES = 1024 * 1024
_BLOCK_BYTES = 64 * 1024
_KEEP_SIZE, _PUNCH_HOLE = 0x01, 0x02
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Chunk:
    """Bytes of the log from `offset`; `expired` were skipped before them."""

    offset: int
    data: bytes
    expired: int

    @property
    def next_offset(self) -> int:
        """Where to read on."""
        return self.offset + len(self.data)


@dataclass(frozen=True)
class Extent:
    """Kept bytes from `start` up to, not including, `end`."""

    start: int
    end: int


class ConsoleLog:
    """Reads and trims one log; any number of readers, beside the one that appends.

    Its id is part of the file's name: the log of an instance made anew under an
    old id is another log.
    """

    def __init__(
        self, path: Path, *, head_bytes: int = HEAD_BYTES, tail_bytes: int = TAIL_BYTES
    ) -> None:
        self.path = path
        self._head_bytes = head_bytes
        self._tail_bytes = tail_bytes

    @classmethod
    def new(cls, folder: Path) -> "ConsoleLog":
        """A log in an instance's folder that nothing was written to yet."""
        return cls(folder / f"console.{uuid.uuid4()}.log")

    @classmethod
    def of(cls, folder: Path, *, log_id: str) -> "ConsoleLog":
        """The log of an id, whether or not it is there."""
        return cls(folder / f"console.{log_id}.log")

    @classmethod
    def found_in(cls, folder: Path) -> "ConsoleLog | None":
        """The log in an instance's folder, if there is one."""
        paths = sorted(folder.glob("console.*.log"))
        return cls(paths[0]) if paths else None

    @property
    def log_id(self) -> str:
        """Which log this is, a UUID."""
        return self.path.name.removeprefix("console.").removesuffix(".log")

    def extents(self) -> list[Extent]:
        """What is still there, in order: one extent, or head and tail."""
        kept: list[Extent] = []
        gaps = self.gaps()
        with self._opened(os.O_RDONLY) as descriptor:
            end = os.fstat(descriptor).st_size if descriptor is not None else 0
            start = _next_kept(descriptor, 0, gaps) if descriptor is not None else 0
            while descriptor is not None and start < end:
                stop = _next_lost(descriptor, start, gaps)
                kept.append(Extent(start, stop))
                start = _next_kept(descriptor, stop, gaps)
        return kept

    def gaps(self) -> list[Extent]:
        """Ranges that nobody ever wrote, in order."""
        with contextlib.suppress(FileNotFoundError):
            lines = self._gaps_path.read_text(encoding="ascii").splitlines()
            return [Extent(*map(int, line.split())) for line in lines]
        return []

    def set_gaps(self, gaps: Iterable[Extent]) -> None:
        """Says which ranges nobody ever wrote."""
        fresh = self._gaps_path.with_suffix(".new")
        lines = [f"{gap.start} {gap.end}\n" for gap in gaps]
        fresh.write_text("".join(lines), encoding="ascii")
        fresh.rename(self._gaps_path)

    @property
    def _gaps_path(self) -> Path:
        return self.path.with_suffix(".gaps")

    def end(self) -> int:
        """Offset after the last byte ever written; 0 while there is no log."""
        with contextlib.suppress(FileNotFoundError):
            return self.path.stat().st_size
        return 0

    def read(self, offset: int, *, max_bytes: int) -> Chunk:
        """Reads from `offset`, or from the first byte after it that is kept."""
        gaps = self.gaps()
        with self._opened(os.O_RDONLY) as descriptor:
            if descriptor is None:
                return Chunk(offset, b"", 0)
            while True:
                start = _next_kept(descriptor, offset, gaps)
                length = min(max_bytes, _next_lost(descriptor, start, gaps) - start)
                data = os.pread(descriptor, length, start)
                # A hole that was punched meanwhile reads as zeros.
                if _is_kept(descriptor, start, start + len(data)):
                    return Chunk(start, data, start - offset)

    def trim(self) -> None:
        """Gives back what is neither head nor tail, when that is worth it."""
        if self._allocated() <= self._head_bytes + 2 * self._tail_bytes:
            return
        keep_from = (self.end() - self._tail_bytes) // _BLOCK_BYTES * _BLOCK_BYTES
        length = keep_from - self._head_bytes
        with self._opened(os.O_RDWR) as descriptor:
            # Filesystems may allocate ahead of the end: then there is nothing to give back.
            if descriptor is not None and length > 0:
                _punch(descriptor, start=self._head_bytes, length=length)

    @contextlib.contextmanager
    def _opened(self, mode: int) -> Iterator[int | None]:
        """A descriptor of the log; None while there is none."""
        try:
            descriptor = os.open(self.path, mode | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            yield None
            return
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def _allocated(self) -> int:
        with contextlib.suppress(FileNotFoundError):
            return self.path.stat().st_blocks * 512
        return 0


def _next_kept(descriptor: int, offset: int, gaps: Sequence[Extent]) -> int:
    """First offset at or after `offset` that was written and is kept."""
    while True:
        start = _next_data(descriptor, offset)
        gap = next((gap for gap in gaps if gap.start <= start < gap.end), None)
        if gap is None:
            return start
        offset = gap.end


def _next_lost(descriptor: int, offset: int, gaps: Sequence[Extent]) -> int:
    """Where what is kept from `offset` on ends."""
    stop = _next_hole(descriptor, offset)
    return min([stop, *(gap.start for gap in gaps if offset < gap.start)])


def _next_data(descriptor: int, offset: int) -> int:
    """First kept offset at or after `offset`; the end where there is none."""
    end = os.fstat(descriptor).st_size
    if offset >= end:
        return offset
    try:
        return os.lseek(descriptor, offset, os.SEEK_DATA)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return end
        raise


def _next_hole(descriptor: int, offset: int) -> int:
    if offset >= os.fstat(descriptor).st_size:
        return offset
    return os.lseek(descriptor, offset, os.SEEK_HOLE)


def _is_kept(descriptor: int, start: int, end: int) -> bool:
    return _next_data(descriptor, start) == start and _next_hole(descriptor, start) >= end


def _punch(descriptor: int, *, start: int, length: int) -> None:
    done = _libc.fallocate(
        descriptor, _PUNCH_HOLE | _KEEP_SIZE, ctypes.c_longlong(start), ctypes.c_longlong(length)
    )
    if done != 0:
        raise OSError(ctypes.get_errno(), "cannot punch a hole into a console log")
