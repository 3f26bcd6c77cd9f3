"""Damage of a write-ahead log that SQLite passes over in silence.

SQLite takes a log up to the first frame whose checksum is wrong and forgets the
rest: right for the end of a write that a crash cut off, wrong for a log that was
damaged. Where every transaction is on disk before the next one begins
(`synchronous=FULL`), of all that a log has only the last one can have been cut off.

    header   magic, version, page size, sequence, 2 salts, 2 sums
    frame*   page number, size of the database after a commit else 0, 2 salts, 2 sums, page

See https://sqlite.org/fileformat2.html#walformat.
"""

import struct
from collections.abc import Iterator
from pathlib import Path

_HEADER = struct.Struct(">8I")
_FRAME = struct.Struct(">6I")
_MAGIC = {0x377F0682: "<", 0x377F0683: ">"}
"""With the byte order of what is summed."""
_Sums = tuple[int, int]


def is_damaged(path: Path) -> bool:
    """Whether SQLite would forget transactions that were on disk; no file is a sound one."""
    content = path.read_bytes() if path.exists() else b""
    if len(content) <= _HEADER.size:
        return False
    magic, _version, page_size, _sequence, *salts, first, second = _HEADER.unpack_from(content)
    order = _MAGIC.get(magic)
    if order is None or _summed((0, 0), content[:24], order) != (first, second):
        return True
    # Frames of other salts are left from before the log began anew.
    forgotten = _forgotten(content, (first, second), order, page_size)
    return sum(1 for frame in forgotten if frame[1] and frame[2:4] == tuple(salts)) > 1


def _forgotten(
    content: bytes, sums: _Sums, order: str, page_size: int
) -> Iterator[tuple[int, ...]]:
    """Headers of the frames from the first one on whose sums or salts are wrong."""
    sound = True
    salts = content[16:24]
    size = _FRAME.size + page_size
    for start in range(_HEADER.size, len(content) - size + 1, size):
        frame = _FRAME.unpack_from(content, start)
        if sound:
            sums = _summed(sums, content[start : start + 8], order)
            sums = _summed(sums, content[start + _FRAME.size : start + size], order)
            sound = sums == frame[4:] and content[start + 8 : start + 16] == salts
        if not sound:
            yield frame


def _summed(sums: _Sums, data: bytes, order: str) -> _Sums:
    """The running sums after some more bytes, a multiple of eight."""
    first, second = sums
    words = iter(struct.unpack(f"{order}{len(data) // 4}I", data))
    for word, following in zip(words, words, strict=True):
        first = (first + word + second) & 0xFFFFFFFF
        second = (second + following + first) & 0xFFFFFFFF
    return first, second
