"""Is a qcow2 image whole: everything that its tables refer to lies in the file.

Source: QEMU's docs/interop/qcow2.txt.
"""

import os
import sys
from array import array
from collections.abc import Callable

from backends.images.refusals import Finding, ImageRefusedError
from backends.qcow2 import Qcow2Header

_MAX_L1_BYTES = 32 << 20  # QEMU's own limit, QCOW_MAX_L1_SIZE
_ENTRY_BYTES = 8
_OFFSET_MASK = 0x00FF_FFFF_FFFF_FE00
_COMPRESSED = 1 << 62


def refuse_truncated(
    descriptor: int, header: Qcow2Header, size_bytes: int, checkpoint: Callable[[], None]
) -> None:
    """Walks the tables of a file of so many bytes; raises ImageRefusedError.

    Reads each table once, so no more than the file has. `checkpoint` is called now and
    then and may raise.
    """
    cluster_bytes = 1 << header.cluster_bits
    l2_entries = cluster_bytes // _ENTRY_BYTES
    too_many = header.l1_entries * _ENTRY_BYTES > _MAX_L1_BYTES
    if too_many or header.l1_entries * l2_entries * cluster_bytes < header.virtual_size_bytes:
        raise ImageRefusedError(Finding.MALFORMED)
    top = _table(descriptor, header.l1_offset, header.l1_entries)
    for offset in {entry & _OFFSET_MASK for entry in top} - {0}:
        checkpoint()
        table = _table(descriptor, offset, l2_entries)
        if any(_host_offset(entry, header.cluster_bits) >= size_bytes for entry in set(table)):
            raise ImageRefusedError(Finding.TRUNCATED)


def _host_offset(entry: int, cluster_bits: int) -> int:
    """Where in the file the data of an L2 entry begin; 0: nowhere."""
    if entry & _COMPRESSED:
        return entry & ((1 << (62 - (cluster_bits - 8))) - 1)
    return entry & _OFFSET_MASK


def _table(descriptor: int, offset: int, entries: int) -> "array[int]":
    try:
        raw = os.pread(descriptor, entries * _ENTRY_BYTES, offset)
    except (OSError, OverflowError) as error:  # an offset beyond what can be addressed
        raise ImageRefusedError(Finding.TRUNCATED) from error
    if len(raw) < entries * _ENTRY_BYTES:
        raise ImageRefusedError(Finding.TRUNCATED)
    table = array("Q", raw)
    if sys.byteorder == "little":
        table.byteswap()
    return table
