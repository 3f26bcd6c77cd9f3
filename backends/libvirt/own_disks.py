"""The files of an instance's own disks: made with it, and made anew."""

from collections.abc import Callable, Container
from pathlib import Path

from backends.config_drive import config_drive
from backends.libvirt.blank_disks import make_blank_disk
from backends.libvirt.blueprint import disk_path
from backends.libvirt.disks import make_overlay
from backends.plan import InstancePlan
from backends.plan.disks import PlannedDisk
from backends.specification import SpecImages

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
        checkpoint()
        path = disk_path(folder, disk)
        if path.name not in keep:
            _make_disk(plan, disk, images, path)


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
