"""What is to be attached, worked out before anything is changed."""

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from virtrpc.v1 import spec_pb2
from virtrpc.v1.instance_pb2 import AttachedDisk, Instance
from virtrpc.v1.spec_pb2 import BlockDevice
from virtrpc.v1.types_pb2 import PowerState

from backends.errors import ContractError, InvalidArgumentError, UnsupportedError
from backends.plan.device_names import DeviceNames, is_name, name_prefix
from backends.plan.disks import PlannedDisk, asked_name, check_device, disk_bus, planned_volume
from backends.power_states import power_blockers
from backends.volumes import refusals
from backends.volumes.attached import attached, find, is_same, users, volumes

FIELD = "device"
ATTACHABLE = (
    PowerState.POWER_STATE_RUNNING,
    PowerState.POWER_STATE_PAUSED,
    PowerState.POWER_STATE_SHUTDOWN,
    PowerState.POWER_STATE_CRASHED,
)
_HOT_BUSES = (spec_pb2.DISK_BUS_VIRTIO, spec_pb2.DISK_BUS_SCSI, spec_pb2.DISK_BUS_USB)


@dataclass(frozen=True)
class Attaching:
    """A volume that is to be attached."""

    disk: PlannedDisk
    asked: AttachedDisk
    """As it will be told."""
    same: AttachedDisk | None
    """It is attached so already."""
    blockers: list[ContractError]


def plan_attachment(
    device: BlockDevice, instance: Instance, others: Iterable[Instance]
) -> Attaching:
    """Works it out against the instance and all instances of the host; raises nothing."""
    blockers = list(_device_errors(device))
    hot = instance.HasField("effective") and not blockers
    names = DeviceNames(d.device_name for d in _disks(instance))
    name = asked_name(device)
    taken = {d.device_name for d in _disks(instance)}
    if not name and not blockers:
        try:
            name = names.free(name_prefix(disk_bus(device), device.device_type))
        except ContractError as error:
            blockers.append(error)
    disk = planned_volume(device, name, field=FIELD)
    asked = attached(disk)
    found = find(instance, asked.volume_id)
    if (
        found is not None
        and found.attachment_id == asked.attachment_id
        and is_same(found, asked, device)
        and _is_everywhere(instance, found)
    ):
        return Attaching(disk, asked, found, [])
    blockers += _conflicts(instance, asked, found, device)
    if asked_name(device) in taken and found is None:
        blockers.append(refusals.device_name_taken(name))
    blockers += _users_errors(asked, users(others, asked, but=instance.instance_id))
    blockers += power_blockers(instance, *ATTACHABLE)
    if hot:
        blockers += hot_plug_errors(asked)
    return Attaching(disk, asked, None, blockers)


def hot_plug_errors(disk: AttachedDisk) -> Iterator[ContractError]:
    """That a disk of this kind can come and go while the machine runs."""
    if disk.bus not in _HOT_BUSES:
        name = spec_pb2.DiskBus.Name(disk.bus).removeprefix("DISK_BUS_")
        yield refusals.not_hot_pluggable(f"{name} takes no disk while the machine runs")


def users_errors(
    asked: AttachedDisk, instances: Iterable[Instance], *, but: str
) -> list[ContractError]:
    """That no other instance has a volume, or all of them share it."""
    return list(_users_errors(asked, users(instances, asked, but=but)))


def _users_errors(asked: AttachedDisk, having: dict[str, AttachedDisk]) -> Iterator[ContractError]:
    if having and not (asked.multi_attach and all(d.multi_attach for d in having.values())):
        yield refusals.volume_in_use(asked.volume_id, having)


def _device_errors(device: BlockDevice) -> Iterator[ContractError]:
    try:
        check_device(device, FIELD)
    except ContractError as error:
        yield error
    name, prefix = asked_name(device), ""
    if device.device_type != spec_pb2.DISK_DEVICE_TYPE_FLOPPY:
        prefix = name_prefix(disk_bus(device))
    if name and prefix and not is_name(name, prefix):
        yield InvalidArgumentError(
            f"{name} is no name of the disk's bus",
            field=f"{FIELD}.device_name",
            reason="DEVICE_NAME_MISMATCH",
        )
    if device.tag:
        why = "the guest's metadata are written when it is made"
        yield UnsupportedError("tagged_attach", why=why, field=f"{FIELD}.tag")
    yield from format_errors(device, FIELD)


def format_errors(device: BlockDevice, field: str) -> Iterator[ContractError]:
    """What QEMU cannot do with a format."""
    volume = device.volume
    qcow2 = attached(planned_volume(device, "", field=field)).format == spec_pb2.DISK_FORMAT_QCOW2
    if qcow2 and volume.multi_attach:
        why = "qcow2 has one writer: only raw volumes can be shared"
        yield InvalidArgumentError(why, field=f"{field}.volume.multi_attach")
    if qcow2 and volume.HasField("encryption"):
        why = "only raw volumes are encrypted"
        yield InvalidArgumentError(why, field=f"{field}.volume.encryption")


def _conflicts(
    instance: Instance, asked: AttachedDisk, found: AttachedDisk | None, device: BlockDevice
) -> Iterator[ContractError]:
    if found is not None:
        yield refusals.attachment_differs("the instance has the volume in another way")
    elif any(disk.attachment_id == asked.attachment_id for disk in volumes(instance)):
        yield refusals.attachment_differs("the attachment_id is that of another volume")
    if device.HasField("boot_index") and any(
        disk.HasField("boot_index")
        and disk.boot_index == device.boot_index
        and disk.volume_id != asked.volume_id
        for disk in instance.persistent.disks
    ):
        yield refusals.boot_index_taken(device.boot_index)


def _disks(instance: Instance) -> Iterator[AttachedDisk]:
    yield from instance.persistent.disks
    yield from instance.effective.disks


def _is_everywhere(instance: Instance, disk: AttachedDisk) -> bool:
    """In the configuration, and in the running machine where there is one."""
    machines = [instance.persistent]
    if instance.HasField("effective"):
        machines.append(instance.effective)
    return all(any(d.attachment_id == disk.attachment_id for d in m.disks) for m in machines)


class Claims:
    """Volumes that are being attached at this moment: by one call at a time."""

    def __init__(self) -> None:
        self._held: set[str] = set()
        self._lock = threading.Lock()

    @contextmanager
    def held(self, *volume_ids: str) -> Iterator[None]:
        """Holds volumes; raises BusyError where another call has one."""
        with self._lock:
            for volume_id in volume_ids:
                if volume_id in self._held:
                    raise refusals.volume_busy(volume_id)
            self._held.update(volume_ids)
        try:
            yield
        finally:
            with self._lock:
                self._held.difference_update(volume_ids)
