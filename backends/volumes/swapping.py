"""A volume that is to take another one's place, worked out before anything is changed."""

import posixpath
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from virtrpc.v1 import volume_pb2 as pb
from virtrpc.v1.instance_pb2 import AttachedDisk, Instance
from virtrpc.v1.spec_pb2 import BlockDevice

from backends.errors import ContractError
from backends.plan.disks import PlannedDisk, planned_volume
from backends.volumes import refusals
from backends.volumes.attached import attached, find, get, volumes
from backends.volumes.attaching import format_errors, users_errors

FIELD = "new_volume"


@dataclass(frozen=True)
class Swap:
    """One volume instead of another, under its name."""

    old: AttachedDisk
    new: AttachedDisk
    disk: PlannedDisk
    """The new one as it is planned."""
    done: bool
    """It has the old one's place already."""
    blockers: list[ContractError]


def plan_swap(
    request: pb.SwapVolumeRequest, instance: Instance, others: Iterable[Instance]
) -> Swap:
    """Works it out; raises VOLUME_NOT_ATTACHED where neither is there."""
    new_id = request.new_volume.volume_id
    attachment_id = request.new_attachment_id or new_id
    present = find(instance, new_id, attachment_id)
    if present is not None and _is_of(request, present, instance):
        disk = _planned(request, present)
        return Swap(present, present, disk, True, [])
    old = get(instance, request.old_volume_id, request.old_attachment_id)
    disk = _planned(request, old)
    new = attached(disk)
    new.serial = old.serial if instance.HasField("effective") else new.serial
    blockers = [*format_errors(_device(request, old), FIELD)]
    blockers += users_errors(new, others, but=instance.instance_id)
    if any(d.attachment_id != old.attachment_id and _clashes(d, new) for d in volumes(instance)):
        why = "the instance has the new volume or its attachment_id already"
        blockers.append(refusals.attachment_differs(why))
    return Swap(old, new, disk, False, blockers)


def chain_errors(swap: Swap, chain: Collection[str]) -> list[ContractError]:
    """That the new volume is no file that the old one is based on: a mirror would write over it.

    `chain`: names of the files of the old volume, all in the active one's directory.
    """
    folder, name = posixpath.split(swap.new.source)
    if folder != posixpath.dirname(swap.old.source) or name not in chain:
        return []
    why = f"the volume is based on {name}, which cannot take its place: DeleteVolumeSnapshot"
    return [refusals.attachment_differs(why)]


def _is_of(request: pb.SwapVolumeRequest, present: AttachedDisk, instance: Instance) -> bool:
    """Whether the new volume, which is attached, is so by this swap."""
    if present.source != attached(_planned(request, present)).source:
        return False
    old = find(instance, request.old_volume_id, request.old_attachment_id)
    return old is None or old.attachment_id == present.attachment_id


def _clashes(disk: AttachedDisk, new: AttachedDisk) -> bool:
    return disk.volume_id == new.volume_id or disk.attachment_id == new.attachment_id


def _planned(request: pb.SwapVolumeRequest, old: AttachedDisk) -> PlannedDisk:
    return planned_volume(_device(request, old), old.device_name, field=FIELD)


def _device(request: pb.SwapVolumeRequest, old: AttachedDisk) -> BlockDevice:
    """The new volume with the old one's place."""
    device = BlockDevice(
        attachment_id=request.new_attachment_id,
        device_name=old.device_name,
        bus=old.bus,
        device_type=old.device_type,
        volume=request.new_volume,
    )
    if old.HasField("boot_index"):
        device.boot_index = old.boot_index
    return device
