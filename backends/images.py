"""The image store: files that root disks, kernels and ramdisks come from.

An image's id is the name of its file without the suffix; the suffix says its
format: `.qcow2`, `.raw`, or none for kernels and ramdisks. A format is never
guessed from the content, and a qcow2 that names other files is refused before
any tool opens it.
"""

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from virtrpc.v1.spec_pb2 import DiskFormat

from backends.errors import InvalidArgumentError, NotFoundError
from backends.qcow2 import Qcow2Header, read_header

_SUFFIXES = {
    ".qcow2": DiskFormat.DISK_FORMAT_QCOW2,
    ".raw": DiskFormat.DISK_FORMAT_RAW,
    "": DiskFormat.DISK_FORMAT_UNSPECIFIED,
}
# The largest file that ext4 can hold. What claims to be more is out to fill the host.
_MOST_BYTES = 16 << 40


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
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise _unusable(image_id, field, "is not a regular file")
        size = status.st_size
        if disk_format == DiskFormat.DISK_FORMAT_QCOW2:
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                size = _qcow2_size(image_id, read_header(file), field)
    finally:
        os.close(descriptor)
    if size > _MOST_BYTES:
        raise _unusable(image_id, field, f"claims to hold {size} bytes")
    return StoredImage(image_id, path, disk_format, size)


def _qcow2_size(image_id: str, header: Qcow2Header | None, field: str) -> int:
    """Virtual size from a header that names no other file."""
    if header is None:
        raise _unusable(image_id, field, "is not a qcow2 image of version 2 or 3")
    if header.backing_file:
        raise _unusable(image_id, field, "has a backing file")
    if header.external_data_file:
        raise _unusable(image_id, field, "has an external data file")
    return header.virtual_size_bytes


def _unusable(image_id: str, field: str, why: str) -> InvalidArgumentError:
    return InvalidArgumentError(f"image {image_id} {why}", field=field, reason="IMAGE_UNUSABLE")
