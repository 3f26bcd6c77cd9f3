"""The files of an instance's own disks: made with it, and made anew."""

import errno
import os
from collections.abc import Callable, Container
from pathlib import Path
from typing import IO

from backends.config_drive import config_drive
from backends.errors import NoRoomError
from backends.images import qemu_img
from backends.libvirt.blank_disks import make_blank_disk
from backends.libvirt.blueprint import disk_path
from backends.libvirt.disks import grow_disk, make_overlay
from backends.plan import InstancePlan
from backends.plan.disks import PlannedDisk
from backends.qcow2 import read_header
from backends.specification import SpecImages

_COPY, _COPY_BYTES = ".copy", 64 << 20
# Firmware variables are no disk, but boot entries that go with the root disk.
_REPLACED = ("*.qcow2", "*.raw", "*.iso", "nvram.fd")


def own_files(folder: Path) -> list[Path]:
    """The files in an instance's folder that go with its disks."""
    return sorted(path for pattern in _REPLACED for path in folder.glob(pattern))


def kept_files(plan: InstancePlan, folder: Path) -> frozenset[str]:
    """Names of the files of ephemeral disks that are there already."""
    paths = (disk_path(folder, disk) for disk in plan.disks if disk.role == "ephemeral")
    return frozenset(path.name for path in paths if path.exists())


def remove_files(folder: Path, *, keep: Container[str]) -> None:
    """Removes the files that go with an instance's disks, but those to be kept."""
    for path in own_files(folder):
        if path.name not in keep:
            path.unlink()


def make_disks(
    plan: InstancePlan,
    images: SpecImages,
    folder: Path,
    *,
    checkpoint: Callable[[], None],
    keep: Container[str] = (),
) -> None:
    """Makes the files of a plan's disks, but those whose names are to be kept."""
    images.mark_used()
    for disk in plan.disks:
        if disk.volume is not None:
            continue
        checkpoint()
        path = disk_path(folder, disk)
        if path.name not in keep:
            _make_disk(plan, disk, images, path)


def fit_disks(
    plan: InstancePlan, images: SpecImages, folder: Path, *, checkpoint: Callable[[], None]
) -> None:
    """Makes files that are there as large as the plan's disks, and those that lack.

    A swap disk of another size is made anew: it has nothing that is missed.
    """
    own = {disk_path(folder, disk): disk for disk in plan.disks if disk.volume is None}
    for path in folder.glob("swap-*.raw"):
        if path not in own or path.stat().st_size != own[path].size_bytes:
            path.unlink()
    for path, disk in own.items():
        checkpoint()
        if not path.exists():
            _make_disk(plan, disk, images, path)
        elif disk.role == "root":
            _grow_root(path, disk.size_bytes)
        elif path.stat().st_size < disk.size_bytes:
            os.truncate(path, disk.size_bytes)


def copy_files(folder: Path, *, checkpoint: Callable[[], None]) -> None:
    """Makes the files that go with an instance's disks new ones of the same content."""
    remove_copies(folder)
    for path in own_files(folder):
        fresh = path.with_name(f"{path.name}{_COPY}")
        try:
            with path.open("rb") as source, _created(fresh) as target:
                copy_sparse(source.fileno(), target.fileno(), checkpoint)
                os.fsync(target.fileno())
            fresh.rename(path)
        except OSError as error:
            if error.errno in qemu_img.FULL:
                raise NoRoomError("the filesystem of the instances is full") from error
            raise
        finally:
            fresh.unlink(missing_ok=True)  # also where it was cancelled


def remove_copies(folder: Path) -> None:
    """Removes what a copy that was broken off has left."""
    for path in folder.glob(f"*{_COPY}"):
        path.unlink()


def copy_sparse(source: int, target: int, checkpoint: Callable[[], None]) -> None:
    """Copies an open file with its holes into an empty one; raises OSError."""
    offset, size = 0, os.fstat(source).st_size
    os.ftruncate(target, size)
    while offset < size:
        checkpoint()
        try:
            offset = os.lseek(source, offset, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return  # nothing but a hole up to the end
            raise
        length = min(os.lseek(source, offset, os.SEEK_HOLE) - offset, _COPY_BYTES)
        offset += os.copy_file_range(source, target, length, offset, offset)


def _created(path: Path) -> IO[bytes]:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    return os.fdopen(os.open(path, flags, 0o600), "wb")


def _grow_root(path: Path, size_bytes: int) -> None:
    with path.open("rb") as file:
        header = read_header(file)
    if header is not None and header.virtual_size_bytes < size_bytes:
        grow_disk(path, size_bytes)


def _make_disk(plan: InstancePlan, disk: PlannedDisk, images: SpecImages, path: Path) -> None:
    """Makes a disk's file, which nobody but the daemon and the guest's process may read."""
    drive = config_drive(plan) if disk.role == "config" else None
    if drive is not None:
        drive.write(path)
    elif disk.role == "root" and images.root is not None:
        make_overlay(path, images.root, size_bytes=disk.size_bytes)
        path.chmod(0o600)
    else:
        make_blank_disk(path, disk)
