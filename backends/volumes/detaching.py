"""What stands in the way of a volume's going."""

from collections.abc import Iterator

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from virtrpc.v1.instance_pb2 import AttachedDisk, Instance
from virtrpc.v1.types_pb2 import PowerState

from backends.errors import ContractError
from backends.power_states import power_blockers
from backends.volumes.attached import is_plugged
from backends.volumes.attaching import ATTACHABLE, hot_plug_errors
from backends.volumes.refusals import not_hot_pluggable

RELEASE_TIMEOUT_S = 160.0
RETRY_INTERVAL_S = 20.0


def detach_errors(instance: Instance, disk: AttachedDisk) -> list[ContractError]:
    """That the instance can let go of a disk now."""
    if not is_plugged(instance, disk):
        return power_blockers(instance, *ATTACHABLE)
    running = PowerState.POWER_STATE_RUNNING
    return [
        *power_blockers(instance, running, *_without_guest()),
        *_hot_unplug_errors(instance, disk),
    ]


def _without_guest() -> tuple["PowerState.ValueType", ...]:
    """States with a machine whose guest has ended."""
    return (PowerState.POWER_STATE_CRASHED,)


def _hot_unplug_errors(instance: Instance, disk: AttachedDisk) -> Iterator[ContractError]:
    yield from hot_plug_errors(disk)
    if _is_booted_from(instance, disk):
        yield not_hot_pluggable(f"the machine runs from {disk.device_name}")


def _is_booted_from(instance: Instance, disk: AttachedDisk) -> bool:
    """An adopted machine may have no order of its own; then its specification has read one."""
    if any(other.HasField("boot_index") for other in instance.persistent.disks):
        return disk.HasField("boot_index") and disk.boot_index == 0
    return any(
        device.HasField("boot_index")
        and device.boot_index == 0
        and device.volume.volume_id == disk.volume_id
        for device in instance.spec.block_devices
    )


def seconds(request: Message, field: str, default: float) -> float:
    """A duration of a request in seconds."""
    if not request.HasField(field):
        return default
    duration: Duration = getattr(request, field)
    return duration.ToNanoseconds() / 1e9
