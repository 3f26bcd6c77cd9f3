"""The console log goes along: same log, same offsets, at a host with another file.

The hypervisor at the destination appends to the file from the switch on, at an offset that
must be beyond where the log will have ended at the source, which nobody knows before. So
the file begins with a hole that is long enough, and afterwards what the source kept last is
written into it, where it was:

    source       ...kept|end
    destination  ...kept|end....hole....|begin → appended

What is left of the hole is a gap: it counts as expired, though nothing was ever there.
"""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from virtrpc.v1 import migration_pb2 as pb

from backends.console_log import ConsoleLog, Extent
from backends.errors import HypervisorError

CARRIED_BYTES = 1 << 20
_MOST_PIECES = 64
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


def last_pieces(log: ConsoleLog) -> list[pb.ConsolePiece]:
    """What of a log goes along: its last bytes, in order."""
    pieces: list[pb.ConsolePiece] = []
    room = CARRIED_BYTES
    for extent in reversed(log.extents()[-_MOST_PIECES:]):
        start = max(extent.start, extent.end - room)
        data = log.read(start, max_bytes=extent.end - start).data
        pieces.insert(0, pb.ConsolePiece(offset=start, data=data))
        room -= len(data)
        if room <= 0:
            break
    return pieces


def take(log: ConsoleLog, pieces: Iterable[pb.ConsolePiece], *, begins: int) -> None:
    """Writes what came along where it was, below where the log begins here."""
    written: list[Extent] = []
    descriptor = os.open(log.path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        for piece in pieces:
            data = piece.data[: max(begins - piece.offset, 0)]
            _write(descriptor, data, piece.offset)
            written.append(Extent(piece.offset, piece.offset + len(data)))
    finally:
        os.close(descriptor)
    log.set_gaps(_between(written, begins))


def _between(written: Sequence[Extent], begins: int) -> list[Extent]:
    """The ranges up to where the log begins here that nothing was written into."""
    starts = [0, *(extent.end for extent in written)]
    stops = [*(extent.start for extent in written), begins]
    return [Extent(a, b) for a, b in zip(starts, stops, strict=True) if a < b]


def _write(descriptor: int, data: bytes, offset: int) -> None:
    while data:
        count = os.pwrite(descriptor, data, offset)
        data, offset = data[count:], offset + count
