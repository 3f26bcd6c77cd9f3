"""Volumes of an instance that is made anew on another host: those that it has, as it has them.

The specification says which it was made with. Since then some have come and some have gone,
so that what the destination is told has the volumes of now, and every name said aloud.
"""

from collections.abc import Iterable, Iterator, Sequence

from virtrpc.v1 import migration_pb2 as pb
from virtrpc.v1.spec_pb2 import BlockDevice, InstanceSpec

from backends.errors import ContractError, WrongStateError
from backends.plan import InstancePlan
from backends.plan.disks import PlannedDisk
from backends.redaction import redacted


def with_volumes(
    instance_id: str, spec: InstanceSpec, devices: Sequence[BlockDevice]
) -> InstanceSpec:
    """A specification whose volumes are `devices`, without secrets; own disks keep their names."""
    made = redacted(spec)
    told = {d.volume.volume_id: d for d in made.block_devices if d.HasField("volume")}
    planned = {disk.field: disk for disk in InstancePlan(instance_id, spec).disks}
    own = [
        _named(device, planned.get(f"spec.block_devices[{index}].ephemeral"))
        for index, device in enumerate(made.block_devices)
        if device.HasField("ephemeral")
    ]
    del made.block_devices[:]
    made.block_devices.extend(own)
    made.block_devices.extend(_told(device, told) for device in devices)
    return made


def untold(
    disks: Iterable[pb.MigrationDisk], spec: InstanceSpec, field: str
) -> Iterator[ContractError]:
    """Volumes of an instance of which a specification does not say how they are reached."""
    told = _volume_ids(spec.block_devices)
    for index, disk in enumerate(disks):
        if disk.volume_id and disk.volume_id not in told:
            why = f"PrepareDestination must be told how volume {disk.volume_id} is reached"
            yield WrongStateError(why, reason="VOLUME_NOT_MIGRATED", field=f"{field}[{index}]")


def _volume_ids(devices: Iterable[BlockDevice]) -> set[str]:
    return {device.volume.volume_id for device in devices if device.HasField("volume")}


def _named(device: BlockDevice, disk: PlannedDisk | None) -> BlockDevice:
    """An own disk under the name that it has, at its place in the boot order."""
    if disk is not None:
        device.device_name = disk.device_name
    if disk is not None and disk.boot_index is not None:
        device.boot_index = disk.boot_index
    return device


def _told(device: BlockDevice, told: dict[str, BlockDevice]) -> BlockDevice:
    """A volume with what only its instance's specification knows of it."""
    before = told.get(device.volume.volume_id)
    if before is not None:
        device.tag = before.tag
    if before is not None and before.volume.HasField("encryption"):
        device.volume.encryption.CopyFrom(before.volume.encryption)
    return device
