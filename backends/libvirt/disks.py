"""Disks of an instance's own, made and copied by qemu-img with every format said explicitly."""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from virtrpc.v1 import spec_pb2

from backends.images import StoredImage, qemu_img

_FORMATS: Mapping[int, str] = {
    spec_pb2.DISK_FORMAT_QCOW2: "qcow2",
    spec_pb2.DISK_FORMAT_RAW: "raw",
}
_MOST_OVERLAY_BYTES = 1 << 30
_COPY_TIMEOUT_S = 24 * 3600.0
Tick = Callable[[], None]


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


def copy_disk(disk: Path, base: StoredImage | None, target: Path, *, to: str, tick: Tick) -> None:
    """Copies a qcow2 disk that no guest has, with what it is based on, to a new file.

    What the disk's header says of other files is not believed: `base` is all there is.
    `to` is the format of the copy; see qemu_img.run for `tick` and the errors.
    """
    backing = None if base is None else _node(_FORMATS[base.format], base.path)
    source = {**_node("qcow2", disk), "backing": backing}
    qemu_img.make_output(target)
    with _lent(disk):
        qemu_img.run(
            "convert", "-q", "-O", to, "--", f"json:{json.dumps(source)}", str(target),
            timeout_s=_COPY_TIMEOUT_S, tick=tick,
        )  # fmt: skip


def grow_disk(disk: Path, size_bytes: int) -> None:
    """Grows a qcow2 disk that no guest has; raises NoRoomError or HypervisorError.

    What its header says of other files is not followed.
    """
    node = {**_node("qcow2", disk), "backing": None}
    with _given(disk):
        qemu_img.run("resize", "-q", "--", f"json:{json.dumps(node)}", str(size_bytes))


def set_base(disk: Path, image: StoredImage) -> None:
    """Makes a qcow2 disk that was inspected, and names no other file, an overlay of an image."""
    with _given(disk):
        qemu_img.run(
            "rebase", "-q", "-u", "-f", "qcow2", "-F", _FORMATS[image.format],
            "-b", str(image.path), "--", str(disk),
        )  # fmt: skip


def take_back(disk: Path) -> None:
    """Makes a disk the daemon's alone again, if it was lent; nothing where there is none."""
    account = qemu_img.Account.unprivileged()
    if account is not None and disk.exists() and disk.stat().st_gid == account.gid:
        disk.chmod(0o600)
        os.chown(disk, -1, os.getegid(), follow_symlinks=False)


@contextmanager
def _given(disk: Path) -> Iterator[None]:
    """Inside, qemu-img, which runs without privileges, may write a disk of the daemon's."""
    account = qemu_img.Account.unprivileged()
    if account is not None:
        os.chown(disk, account.uid, account.gid, follow_symlinks=False)
    try:
        yield
    finally:
        qemu_img.take_output(disk)


@contextmanager
def _lent(disk: Path) -> Iterator[None]:
    """Inside, qemu-img, which runs without privileges, may read a disk of the daemon's."""
    account = qemu_img.Account.unprivileged()
    if account is not None:
        os.chown(disk, -1, account.gid, follow_symlinks=False)
        disk.chmod(0o640)
    try:
        yield
    finally:
        take_back(disk)


def _node(driver: str, path: Path) -> dict[str, Any]:
    return {"driver": driver, "file": {"driver": "file", "filename": str(path)}}
