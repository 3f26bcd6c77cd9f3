"""Disks of an instance's own, made by qemu-img with every format said explicitly."""

from collections.abc import Mapping
from pathlib import Path

from virtrpc.v1 import spec_pb2

from backends.images import StoredImage, qemu_img

_FORMATS: Mapping[int, str] = {
    spec_pb2.DISK_FORMAT_QCOW2: "qcow2",
    spec_pb2.DISK_FORMAT_RAW: "raw",
}
_MOST_OVERLAY_BYTES = 1 << 30


def make_overlay(path: Path, image: StoredImage, *, size_bytes: int) -> None:
    """Makes a qcow2 disk over an image that was inspected; 0 means the image's own size.

    qemu-img does not open the image: its format and size are known.
    """
    qemu_img.make_output(path)
    qemu_img.run(
        "create", "-q", "-u", "-f", "qcow2", "-F", _FORMATS[image.format], "-b", str(image.path),
        "--", str(path), str(size_bytes or image.virtual_size_bytes),
        max_file_bytes=_MOST_OVERLAY_BYTES,
    )  # fmt: skip
    qemu_img.take_output(path)
