"""Looks at an image before any tool opens it: is it what it is said to be, and only that.

The header is held against every format that QEMU could take it for
(oslo.utils' format_inspector), then against what makes a qcow2 image dangerous:
it must refer to nothing outside itself.
"""

import io
import os
import stat
from collections.abc import Callable, Set
from pathlib import Path
from typing import IO

from oslo_utils.imageutils import format_inspector
from virtrpc.v1.spec_pb2 import DiskFormat

from backends.images.policy import SizeLimits
from backends.images.qcow2_tables import refuse_truncated
from backends.images.refusals import Finding, ImageRefusedError, too_large
from backends.qcow2 import Qcow2Header, read_header

# Every signature that is known lies in these first bytes; ISO 9660's is the last.
_HEAD_BYTES = 64 << 10
_SECTOR_BYTES = 512
_QCOW2 = "qcow2"
_CLUSTER_BITS = range(9, 22)
# What may stand on a disk of plain sectors: partitions, and the filesystem of a CD.
_RAW_CONTENTS = frozenset({"gpt", "iso"})
_FINDINGS = {
    "backing_file": Finding.BACKING_FILE,
    "data_file": Finding.DATA_FILE,
    "unknown_features": Finding.UNKNOWN_FEATURE,
}


def open_regular(path: Path) -> IO[bytes]:
    """Opens a regular file for reading; never follows a link, never waits for a FIFO.

    Raises OSError; for what is no regular file its `errno` is None.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError("not a regular file")
    return os.fdopen(descriptor, "rb")


def inspect(file: IO[bytes], declared: "DiskFormat.ValueType", limits: SizeLimits) -> int:
    """Holds a file's header against its declared format; gives the disk's size in bytes.

    Raises ImageRefusedError, or NoRoomError above a limit.
    """
    size_bytes = os.fstat(file.fileno()).st_size
    if size_bytes > limits.size_bytes:
        raise too_large("file", limits.size_bytes)
    head = os.pread(file.fileno(), _HEAD_BYTES, 0)
    found = _formats(head)
    virtual_size_bytes = size_bytes
    if declared == DiskFormat.DISK_FORMAT_QCOW2:
        virtual_size_bytes = _inspect_qcow2(head, found).virtual_size_bytes
    else:
        _inspect_raw(found)
    if virtual_size_bytes > limits.virtual_size_bytes:
        raise too_large("disk", limits.virtual_size_bytes)
    return virtual_size_bytes


def inspect_whole(
    file: IO[bytes],
    declared: "DiskFormat.ValueType",
    limits: SizeLimits,
    checkpoint: Callable[[], None],
) -> int:
    """As `inspect`, and makes sure that nothing of the image is missing."""
    virtual_size_bytes = inspect(file, declared, limits)
    file.seek(0)
    header = read_header(file)
    if declared == DiskFormat.DISK_FORMAT_QCOW2 and header is not None:
        size_bytes = os.fstat(file.fileno()).st_size
        refuse_truncated(file.fileno(), header, size_bytes, checkpoint)
    return virtual_size_bytes


def _inspect_raw(found: Set[str]) -> None:
    if "luks" in found:
        raise ImageRefusedError(Finding.ENCRYPTED)
    if found - _RAW_CONTENTS:
        raise ImageRefusedError(Finding.FORMAT_MISMATCH)


def _inspect_qcow2(head: bytes, found: Set[str]) -> Qcow2Header:
    if _QCOW2 not in found:
        raise ImageRefusedError(Finding.FORMAT_MISMATCH)
    inspector = format_inspector.QcowInspector()
    inspector.eat_chunk(head.ljust(_SECTOR_BYTES, b"\0"))
    try:
        inspector.safety_check()
    except format_inspector.SafetyCheckFailed as error:
        findings = [_FINDINGS.get(name, Finding.MALFORMED) for name in error.failures]
        raise ImageRefusedError(findings[0]) from error
    header = read_header(io.BytesIO(head))
    if header is not None and header.encryption:
        raise ImageRefusedError(Finding.ENCRYPTED)
    sound = header is not None and not header.corrupt and header.cluster_bits in _CLUSTER_BITS
    if header is None or not sound or found != {_QCOW2}:
        raise ImageRefusedError(Finding.MALFORMED)
    return header


def _formats(head: bytes) -> Set[str]:
    """Names of all formats that the bytes look like, but "raw"."""
    # Some signatures are only looked for in a whole sector, some texts only without padding.
    heads = {head, head.ljust(_SECTOR_BYTES, b"\0")}
    return {
        name
        for name, kind in format_inspector.ALL_FORMATS.items()
        if name != "raw" and any(_matches(kind, each) for each in heads)
    }


def _matches(kind: type[format_inspector.FileInspector], head: bytes) -> bool:
    inspector = kind()
    source = io.BytesIO(head)
    try:
        while chunk := source.read(4096):
            inspector.eat_chunk(chunk)
        inspector.finish()
        return bool(inspector.format_match)
    except Exception:  # noqa: BLE001 - by any exception it says that this is another format
        return False
