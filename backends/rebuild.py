"""What every backend makes of a rebuild in the same way: the new specification, and its checks."""

from collections.abc import Iterable, Iterator

from virtrpc.v1 import instance_pb2 as pb
from virtrpc.v1.instance_pb2 import Instance
from virtrpc.v1.spec_pb2 import InstanceSpec

from backends.errors import (
    ContractError,
    InvalidArgumentError,
    UnsupportedError,
    WrongStateError,
)
from backends.plan import InstancePlan
from backends.plan.disks import OWN_ROLES


def rebuilt_spec(spec: InstanceSpec, request: pb.RebuildInstanceRequest) -> InstanceSpec:
    """The specification of an instance that has, or is to have, `spec`, after its rebuild."""
    made = InstanceSpec()
    made.CopyFrom(spec)
    made.image.CopyFrom(request.image)
    if request.HasField("guest"):
        made.guest.CopyFrom(request.guest)
    return made


def request_blockers(
    request: pb.RebuildInstanceRequest, spec: InstanceSpec
) -> Iterator[ContractError]:
    """What no state of an instance can make good; `spec` is that before the rebuild."""
    if request.recreate and not request.HasField("spec"):
        yield InvalidArgumentError("recreate needs a specification", field="spec")
    if request.HasField("spec") and not request.recreate:
        yield InvalidArgumentError("a specification is for recreate only", field="spec")
    on_volume = any(
        device.HasField("volume") and device.HasField("boot_index") for device in spec.block_devices
    )
    if request.reimage_boot_volume:
        why = "volumes are not written with images yet"
        yield UnsupportedError("reimage_boot_volume", why=why, field="reimage_boot_volume")
    elif on_volume and not spec.image.image_id:
        why = "the instance boots from a volume, which is not written with an image yet"
        yield UnsupportedError("reimage_boot_volume", why=why, field="image")


def name_blockers(plan: InstancePlan, instance: Instance) -> Iterator[ContractError]:
    """Disks that would have the name of one that is not made with the instance."""
    made = (*OWN_ROLES, "rescue")
    others = {disk.device_name for disk in instance.persistent.disks if disk.role not in made}
    for disk in plan.disks:
        if disk.device_name in others:
            why = f"the instance has another disk {disk.device_name}, which stays"
            yield WrongStateError(why, reason="DEVICE_NAME_TAKEN")


def as_asked(
    errors: Iterable[ContractError], request: pb.RebuildInstanceRequest
) -> list[ContractError]:
    """Errors of a specification, with the paths of the request's fields that they come from."""
    told = list(errors)
    for error in told:
        error.field = _asked_field(error.field, request)
    return told


def _asked_field(field: str, request: pb.RebuildInstanceRequest) -> str:
    if field.startswith("spec.image"):
        return field.removeprefix("spec.")
    if field.startswith("spec.guest") and request.HasField("guest"):
        return field.removeprefix("spec.")
    if field.startswith("spec.") and not request.recreate:
        return "image"  # that does not go with what the instance is
    return field
