"""The header of a LUKS1 volume: just what must be known without its passphrase.

Source: LUKS1 on-disk format specification, version 1.2.3, section 2.3.
"""

import struct
from pathlib import Path

_MAGIC = b"LUKS\xba\xbe\x00\x01"
_PAYLOAD_OFFSET_AT, _SECTOR_BYTES = 104, 512


def is_luks1(head: bytes) -> bool:
    """Whether the first 8 bytes are those of a LUKS1 header."""
    return head[: len(_MAGIC)] == _MAGIC


def header_bytes(path: Path) -> int:
    """Bytes before the guest's own; 0 where there is no header."""
    with path.open("rb") as file:
        head = file.read(_PAYLOAD_OFFSET_AT + 4)
    if not is_luks1(head):
        return 0
    (sectors,) = struct.unpack_from(">I", head, _PAYLOAD_OFFSET_AT)
    return int(sectors) * _SECTOR_BYTES
