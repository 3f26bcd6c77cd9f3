"""The console log goes along: same log, same offsets, at a host with another file.

The hypervisor at the destination appends to the file from the switch on, at an offset that
must be beyond where the log will have ended at the source, which nobody knows before. So
the file begins with a hole that is long enough, and afterwards what the source kept last is
written into it, where it was:

    source       ...kept|end
    destination  ...kept|end....hole....|begin → appended

What is left of the hole counts as expired, as all holes of a log do: nothing was there.
"""

import os
from pathlib import Path

from backends.console_log import ConsoleLog
from backends.errors import HypervisorError

CARRIED_BYTES = 1 << 20
_BLOCK_BYTES = 1 << 16
# More than a console prints while a guest moves; what is beyond stays behind.
_HOLE_BYTES = 8 << 20


def begin(offset: int) -> int:
    """Where the log goes on at a destination that is told where it is at the source."""
    return (offset // _BLOCK_BYTES + 1) * _BLOCK_BYTES + _HOLE_BYTES


def expect(path: Path, offset: int) -> None:
    """Makes the file to which the hypervisor will append."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(descriptor, begin(offset))
    except OSError as error:
        raise HypervisorError(f"a console log cannot be made: {error.strerror}") from error
    finally:
        os.close(descriptor)


def last_bytes(log: ConsoleLog) -> tuple[bytes, int]:
    """What of a log goes along, and the offset where it ends."""
    end = log.end()
    kept = b""
    offset = max(end - CARRIED_BYTES, 0)
    while offset < end:
        chunk = log.read(offset, max_bytes=end - offset)
        if not chunk.data:
            break
        kept = chunk.data if chunk.expired else kept + chunk.data
        offset = chunk.next_offset
    return kept, offset


def take(path: Path, kept: bytes, *, end: int, begins: int) -> None:
    """Writes what came along where it was, below where the log begins here."""
    start = end - len(kept)
    kept = kept[: max(begins - start, 0)]
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        while kept:
            written = os.pwrite(descriptor, kept, start)
            kept, start = kept[written:], start + written
    finally:
        os.close(descriptor)
