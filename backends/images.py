"""The image store: files that root disks, kernels and ramdisks come from.

An image's id is the name of its file without the suffix; the suffix says its
format: `.qcow2`, `.raw`, or none for kernels and ramdisks. A format is never
guessed from the content, and a qcow2 that names other files is refused before
any tool opens it.
"""

import os
import stat
import struct
from dataclasses import dataclass
from pathlib import Path

from virtrpc.v1.spec_pb2 import DiskFormat

from backends.errors import InvalidArgumentError, NotFoundError

_SUFFIXES = {
    ".qcow2": DiskFormat.DISK_FORMAT_QCOW2,
    ".raw": DiskFormat.DISK_FORMAT_RAW,
    "": DiskFormat.DISK_FORMAT_UNSPECIFIED,
}
_QCOW2_MAGIC = b"QFI\xfb"
_QCOW2_HEADER = struct.Struct(">4sIQIIQ")  # magic, version, backing offset and size, bits, size
_QCOW2_INCOMPATIBLE_OFFSET = 72
_EXTERNAL_DATA_FILE = 1 << 2


@dataclass(frozen=True)
class StoredImage:
    """An image of the store, inspected."""

    image_id: str
    path: Path
    format: "DiskFormat.ValueType"
    virtual_size_bytes: int


class ImageStore:
    """Images in one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find(self, image_id: str, *, field: str) -> StoredImage:
        """The image of an id, which `field` of the request names.

        Raises NotFoundError, or InvalidArgumentError for one that may not be used.
        """
        for suffix, disk_format in _SUFFIXES.items():
            path = self._folder / f"{image_id}{suffix}"
            if path.is_symlink() or path.exists():
                return _inspected(image_id, path, disk_format, field)
        raise NotFoundError(
            f"image {image_id} is not in this host's store",
            reason="IMAGE_NOT_FOUND",
            field=field,
            metadata={"image_id": image_id},
        )

    def find_disk(self, image_id: str, *, field: str) -> StoredImage:
        """As `find`, for an image that a disk is made from."""
        image = self.find(image_id, field=field)
        if image.format == DiskFormat.DISK_FORMAT_UNSPECIFIED:
            raise InvalidArgumentError(
                f"image {image_id} is not a disk (its file is neither .qcow2 nor .raw)",
                field=field,
                reason="IMAGE_NOT_A_DISK",
            )
        return image


def _inspected(
    image_id: str, path: Path, disk_format: "DiskFormat.ValueType", field: str
) -> StoredImage:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise _unusable(image_id, field, f"cannot be opened ({error.strerror})") from error
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise _unusable(image_id, field, "is not a regular file")
        size = status.st_size
        if disk_format == DiskFormat.DISK_FORMAT_QCOW2:
            size = _qcow2_size(image_id, file.read(104), field)
    return StoredImage(image_id, path, disk_format, size)


def _qcow2_size(image_id: str, header: bytes, field: str) -> int:
    """Virtual size from a header that names no other file."""
    if len(header) < _QCOW2_INCOMPATIBLE_OFFSET or not header.startswith(_QCOW2_MAGIC):
        raise _unusable(image_id, field, "is not a qcow2 image")
    _, version, backing_offset, _, _, size = _QCOW2_HEADER.unpack_from(header)
    if backing_offset:
        raise _unusable(image_id, field, "has a backing file")
    if version >= 3:
        (incompatible,) = struct.unpack_from(">Q", header, _QCOW2_INCOMPATIBLE_OFFSET)
        if incompatible & _EXTERNAL_DATA_FILE:
            raise _unusable(image_id, field, "has an external data file")
    return int(size)


def _unusable(image_id: str, field: str, why: str) -> InvalidArgumentError:
    return InvalidArgumentError(f"image {image_id} {why}", field=field, reason="IMAGE_UNUSABLE")
