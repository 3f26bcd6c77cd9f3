"""Disks of an instance's own, made by qemu-img with every format said explicitly."""

import subprocess
from collections.abc import Mapping
from pathlib import Path

from virtrpc.v1 import spec_pb2

from backends.errors import HypervisorError, NoRoomError
from backends.images import StoredImage

_TIMEOUT_S = 300
_FORMATS: Mapping[int, str] = {
    spec_pb2.DISK_FORMAT_QCOW2: "qcow2",
    spec_pb2.DISK_FORMAT_RAW: "raw",
}
_NO_SPACE = b"No space left on device"


def make_overlay(path: Path, image: StoredImage, *, size_bytes: int) -> None:
    """Makes a qcow2 disk over an image that was inspected; 0 means the image's own size."""
    size = [str(size_bytes)] if size_bytes else []
    _qemu_img("create", "-q", "-f", "qcow2", "-F", _FORMATS[image.format],
              "-b", str(image.path), "--", str(path), *size)  # fmt: skip


def _qemu_img(command: str, *arguments: str) -> None:
    try:
        done = subprocess.run(
            ["qemu-img", command, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise HypervisorError(f"qemu-img {command} took longer than {_TIMEOUT_S} s") from error
    if done.returncode == 0:
        return
    # The program says it in no other way than by the C library's message.
    if _NO_SPACE in done.stderr:
        raise NoRoomError("the filesystem of the instances is full", reason="NO_ROOM")
    lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
    raise HypervisorError(f"qemu-img {command} failed: {lines[-1] if lines else 'no message'}")
