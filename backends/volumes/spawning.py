"""Volumes of an instance that is to be made: what stands in their way."""

from collections.abc import Container, Iterable, Iterator

from virtrpc.v1.instance_pb2 import Instance

from backends.errors import ContractError
from backends.plan import InstancePlan
from backends.volumes.attached import attached
from backends.volumes.attaching import format_errors, users_errors
from backends.volumes.storage import Storage

_TIMEOUT_S = 30.0


def spawn_errors(
    plan: InstancePlan, storage: Storage, others: Iterable[Instance], *, keyed: Container[str] = ()
) -> Iterator[ContractError]:
    """Of all volumes of a plan; raises nothing.

    `keyed` are attachments whose keys were handed over before, with which they were looked at.
    """
    instances = list(others)
    for disk in plan.disks:
        if disk.volume is None:
            continue
        if disk.attachment_id not in keyed:
            _, errors = storage.looked_at(disk.volume, field=disk.field, timeout_s=_TIMEOUT_S)
            yield from errors
        yield from users_errors(attached(disk), instances, but=plan.instance_id)
    for index, device in enumerate(plan.spec.block_devices):
        if device.HasField("volume"):
            yield from format_errors(device, f"spec.block_devices[{index}]")
