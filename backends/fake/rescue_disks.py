"""The disks of a fake machine on its way into rescue and out of it: pure functions.

As on real machines the rescue disk takes the root disk's name, and the root disk the next
free one (see backends.libvirt.blueprint.rescue).
"""

from collections.abc import Iterable

from virtrpc.v1 import spec_pb2
from virtrpc.v1.instance_pb2 import AttachedDisk

from backends.plan.disks import CONFIG_DRIVE_NAME, free_name

_VIRTIO = spec_pb2.DISK_BUS_VIRTIO


def in_rescue(disks: Iterable[AttachedDisk], *, config_drive: str) -> list[AttachedDisk]:
    """The disks of a machine in rescue; `config_drive` is the rescue system's, empty: none."""
    made = _copies(disks, boot_later_by=1)
    name = free_name(_VIRTIO, {disk.device_name for disk in made})
    for disk in made:
        if disk.role == "root":
            name, disk.device_name = disk.device_name, name
    if config_drive:
        made = [disk for disk in made if disk.role != "config"] + [_config_disk(config_drive)]
    return _in_order([_rescue_disk(name), *made])


def out_of_rescue(disks: Iterable[AttachedDisk], *, config_drive: str) -> list[AttachedDisk]:
    """The disks of the machine as it was; `config_drive` is the instance's own, empty: none."""
    made = _copies(disks, boot_later_by=-1)
    name = next(disk.device_name for disk in made if disk.role == "rescue")
    for disk in made:
        if disk.role == "root":
            disk.device_name = name
    made = [disk for disk in made if disk.role not in ("rescue", "config")]
    return _in_order([*made, *([_config_disk(config_drive)] if config_drive else [])])


def _copies(disks: Iterable[AttachedDisk], *, boot_later_by: int) -> list[AttachedDisk]:
    made = []
    for disk in disks:
        copy = AttachedDisk()
        copy.CopyFrom(disk)
        if copy.HasField("boot_index") and copy.role != "rescue":
            copy.boot_index += boot_later_by
        made.append(copy)
    return made


def _in_order(disks: list[AttachedDisk]) -> list[AttachedDisk]:
    return sorted(disks, key=lambda disk: disk.device_name)


def _rescue_disk(name: str) -> AttachedDisk:
    return AttachedDisk(
        device_name=name,
        role="rescue",
        bus=_VIRTIO,
        format=spec_pb2.DISK_FORMAT_QCOW2,
        device_type=spec_pb2.DISK_DEVICE_TYPE_DISK,
        boot_index=0,
    )


def _config_disk(source: str) -> AttachedDisk:
    return AttachedDisk(
        device_name=CONFIG_DRIVE_NAME,
        role="config",
        bus=_VIRTIO,
        source=source,
        format=spec_pb2.DISK_FORMAT_RAW,
        device_type=spec_pb2.DISK_DEVICE_TYPE_DISK,
        read_only=True,
    )
