"""The log of an instance's serial console: one sparse file, bounded on disk.

The hypervisor process itself appends to the file, so nothing is lost while the
daemon is away, and a byte's offset in the file is its offset in the log for
ever. What lies between the kept head and tail is given back to the filesystem
by punching a hole (fallocate(2)); where the holes are the filesystem knows
(lseek(2), SEEK_DATA), so there is no second book to keep in step.

    0        head          expired            tail             end
    |########|.............................|###################|→ appended
"""

import contextlib
import ctypes
import errno
import os
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


class ConsoleLog:
    """Reads and trims one log; any number of readers, beside the one that appends."""

    def __init__(
        self, path: Path, *, head_bytes: int = HEAD_BYTES, tail_bytes: int = TAIL_BYTES
    ) -> None:
        self.path = path
        self._head_bytes = head_bytes
        self._tail_bytes = tail_bytes

    def end(self) -> int:
        """Offset after the last byte ever written; 0 while there is no log."""
        with contextlib.suppress(FileNotFoundError):
            return self.path.stat().st_size
        return 0

    def read(self, offset: int, *, max_bytes: int) -> Chunk:
        """Reads from `offset`, or from the first byte after it that is kept."""
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return Chunk(offset, b"", 0)
        try:
            start = _next_data(descriptor, offset)
            length = min(max_bytes, _next_hole(descriptor, start) - start)
            return Chunk(start, os.pread(descriptor, length, start), start - offset)
        finally:
            os.close(descriptor)

    def trim(self) -> None:
        """Gives back what is neither head nor tail, when that is worth it."""
        end = self.end()
        keep_from = (end - self._tail_bytes) // _BLOCK_BYTES * _BLOCK_BYTES
        if self._allocated() <= self._head_bytes + 2 * self._tail_bytes:
            return
        descriptor = os.open(self.path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            _punch(descriptor, start=self._head_bytes, length=keep_from - self._head_bytes)
        finally:
            os.close(descriptor)

    def _allocated(self) -> int:
        with contextlib.suppress(FileNotFoundError):
            return self.path.stat().st_blocks * 512
        return 0


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


def _punch(descriptor: int, *, start: int, length: int) -> None:
    done = _libc.fallocate(
        descriptor, _PUNCH_HOLE | _KEEP_SIZE, ctypes.c_longlong(start), ctypes.c_longlong(length)
    )
    if done != 0:
        raise OSError(ctypes.get_errno(), "cannot punch a hole into a console log")
