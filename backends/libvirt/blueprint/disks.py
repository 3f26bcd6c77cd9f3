"""Disks of a domain.

The config drive is a read-only disk, not a CD-ROM: kernels made for clouds have no
SATA, and guests look for its label on every block device.
"""

from collections.abc import Mapping
from pathlib import Path

from virtrpc.v1 import spec_pb2

from backends.libvirt.attached_disks import ALIAS_PREFIX
from backends.libvirt.blueprint.volumes import LocatedVolume, volume_disk
from backends.libvirt.xml.disk import Disk
from backends.libvirt.xml.domain import Controller, Domain
from backends.plan import InstancePlan
from backends.plan.disks import PlannedDisk

SCSI_CONTROLLER = Controller(type="scsi", index=0, model="virtio-scsi")
_BUSES: Mapping[int, str] = {
    spec_pb2.DISK_BUS_VIRTIO: "virtio",
    spec_pb2.DISK_BUS_SCSI: "scsi",
    spec_pb2.DISK_BUS_SATA: "sata",
    spec_pb2.DISK_BUS_USB: "usb",
}


def disk_path(folder: Path, disk: PlannedDisk) -> Path:
    """File of one of an instance's own disks in its folder."""
    if disk.role == "root":
        return folder / "root.qcow2"
    if disk.role == "config":
        return folder / "config.iso"
    return folder / f"{disk.role}-{disk.device_name}.raw"


def add_disks(
    domain: Domain,
    plan: InstancePlan,
    *,
    folder: Path,
    root_disk: Path | None,
    volumes: Mapping[str, LocatedVolume],
    initiator: str,
) -> None:
    """Puts an instance's disks into a domain; `root_disk` is the root disk's file.

    `volumes` are by attachment; what is not in it is where its specification says.
    """
    for disk in plan.disks:
        if disk.volume is not None:
            located = volumes.get(disk.attachment_id) or LocatedVolume(volume=disk.volume)
            domain.disks.append(
                volume_disk(disk, located, instance_id=plan.instance_id, initiator=initiator)
            )
            continue
        path = disk_path(folder, disk)
        if disk.role == "root" and root_disk is not None:
            path = root_disk
        domain.disks.append(_disk(disk, path))
    if any(disk.bus == spec_pb2.DISK_BUS_SCSI for disk in plan.disks):
        domain.controllers.append(SCSI_CONTROLLER)


def _disk(disk: PlannedDisk, path: Path) -> Disk:
    config = disk.role == "config"
    return Disk(
        type="file",
        device="disk",
        driver_name="qemu",
        format="qcow2" if disk.role == "root" else "raw",
        discard=None if config else "unmap",
        source_file=str(path),
        target=disk.device_name,
        bus=_BUSES[disk.bus],
        read_only=config,
        serial=disk.serial or None,
        boot_order=None if disk.boot_index is None else disk.boot_index + 1,
        alias=_alias(disk),
    )


def _alias(disk: PlannedDisk) -> str:
    """The role, and where there can be several of it, which one."""
    unique = disk.role in ("root", "config")
    return f"{ALIAS_PREFIX}{disk.role}" + ("" if unique else f"-{disk.device_name}")
