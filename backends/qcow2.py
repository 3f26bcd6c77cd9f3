"""The header of a qcow2 file: just what must be known before a tool may open it; and empty ones.

Source: QEMU's docs/interop/qcow2.txt.
"""

import struct
from dataclasses import dataclass
from typing import IO

_MAGIC = b"QFI\xfb"
# Magic, version, backing offset and size, cluster bits, size, encryption, L1 entries and offset.
_HEADER = struct.Struct(">4sIQIIQIIQ")
_BACKING = slice(8, 20)  # offset and size of the backing file's name
_INCOMPATIBLE_OFFSET = 72
_CORRUPT = 1 << 1
_EXTERNAL_DATA_FILE = 1 << 2
_HEADER_LENGTH_OFFSET = 100
_BACKING_FORMAT = 0xE2792ACA
_LEAST_BYTES = {2: 72, 3: 104}  # of a header, by version
_MAX_NAME_BYTES = 1023
_CLUSTER_BITS = 16
_CLUSTER_BYTES = 1 << _CLUSTER_BITS
_MAX_CLUSTER_BYTES = 2 << 20  # the first cluster has to hold the name


@dataclass(frozen=True, kw_only=True)
class Qcow2Header:
    """What a qcow2 file says of itself: not to be trusted."""

    virtual_size_bytes: int
    backing_file: str
    """Name of the file it is an overlay of; empty: none."""
    backing_format: str
    """Format of that file as it was said when the overlay was made; empty: it was not."""
    external_data_file: bool
    """Its data are in another file."""
    cluster_bits: int
    encryption: int
    """Method; 0: none."""
    corrupt: bool
    """QEMU has found it so."""
    l1_entries: int
    l1_offset: int


def read_header(file: IO[bytes]) -> Qcow2Header | None:
    """The header of an open file; None where it is not a qcow2 file."""
    header = file.read(max(_LEAST_BYTES.values()))
    if len(header) < _HEADER.size or not header.startswith(_MAGIC):
        return None
    _, version, backing_offset, backing_bytes, *others = _HEADER.unpack_from(header)
    if len(header) < _LEAST_BYTES.get(version, len(header) + 1):
        return None
    cluster_bits, size, encryption, l1_entries, l1_offset = others
    incompatible = 0
    if version == 3:
        (incompatible,) = struct.unpack_from(">Q", header, _INCOMPATIBLE_OFFSET)
    backing_file = ""
    backing_format = _backing_format(file, header, version) if backing_offset else ""
    if backing_offset:
        file.seek(min(backing_offset, _MAX_CLUSTER_BYTES))
        name = file.read(min(backing_bytes, _MAX_NAME_BYTES))
        backing_file = name.decode("utf-8", "replace") or "?"
    return Qcow2Header(
        virtual_size_bytes=size,
        backing_file=backing_file,
        backing_format=backing_format,
        external_data_file=bool(incompatible & _EXTERNAL_DATA_FILE),
        cluster_bits=cluster_bits,
        encryption=encryption,
        corrupt=bool(incompatible & _CORRUPT),
        l1_entries=l1_entries,
        l1_offset=l1_offset,
    )


def head_without_base(file: IO[bytes]) -> bytes:
    """The first bytes of a qcow2 file as they are in one that is based on no other."""
    file.seek(0)
    head = file.read(_BACKING.stop)
    return head[: _BACKING.start] + bytes(len(head) - _BACKING.start)


def empty_disk(virtual_size_bytes: int) -> bytes:
    """A whole qcow2 file of a disk without content, of up to 4 TiB.

    Clusters: the header, the table of refcounts and its one block, then the L1 table.
    """
    per_l1_entry = _CLUSTER_BYTES * (_CLUSTER_BYTES // 8)
    l1_entries = max(1, -(-virtual_size_bytes // per_l1_entry))
    clusters = 3 + -(-l1_entries * 8 // _CLUSTER_BYTES)
    header = _HEADER.pack(
        _MAGIC, 3, 0, 0, _CLUSTER_BITS, virtual_size_bytes, 0, l1_entries, 3 * _CLUSTER_BYTES
    )
    header += struct.pack(">QIIQQQQII", _CLUSTER_BYTES, 1, 0, 0, 0, 0, 0, 4, _LEAST_BYTES[3])
    tables = (header, struct.pack(">Q", 2 * _CLUSTER_BYTES), struct.pack(">H", 1) * clusters)
    whole = b"".join(table.ljust(_CLUSTER_BYTES, b"\0") for table in tables)
    return whole.ljust(clusters * _CLUSTER_BYTES, b"\0")


def _backing_format(file: IO[bytes], header: bytes, version: int) -> str:
    """From the header extensions, which follow the header up to the backing file's name."""
    at = _LEAST_BYTES[2]
    if version == 3:
        (at,) = struct.unpack_from(">I", header, _HEADER_LENGTH_OFFSET)
    while at < _MAX_CLUSTER_BYTES:
        file.seek(at)
        head = file.read(8)
        kind, length = struct.unpack(">II", head) if len(head) == 8 else (0, 0)
        if kind == _BACKING_FORMAT:
            return file.read(min(length, 16)).decode("ascii", "replace")
        if not kind:
            return ""
        at += 8 + -(-length // 8) * 8
    return ""
