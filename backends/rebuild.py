"""What every backend makes of a rebuild in the same way: the new specification, and its checks."""

from collections.abc import Iterable, Iterator

from virtrpc.v1 import instance_pb2 as pb
from virtrpc.v1 import spec_pb2
from virtrpc.v1.instance_pb2 import AttachedDisk, Instance
from virtrpc.v1.spec_pb2 import InstanceSpec

from backends.errors import (
    ContractError,
    InvalidArgumentError,
    UnsupportedError,
    WrongStateError,
)
from backends.images import ImageStore, StoredImage
from backends.plan import InstancePlan
from backends.plan.disks import OWN_ROLES
from backends.volumes.attached import VOLUME

_REIMAGE = "reimage_boot_volume"


def rebuilt_spec(spec: InstanceSpec, request: pb.RebuildInstanceRequest) -> InstanceSpec:
    """The specification of an instance that has, or is to have, `spec`, after its rebuild."""
    made = InstanceSpec()
    made.CopyFrom(spec)
    made.image.CopyFrom(request.image)
    if request.reimage_boot_volume and not spec.image.image_id:
        made.image.ClearField("image_id")  # the volume is written with it: no root disk is made
    if request.HasField("guest"):
        made.guest.CopyFrom(request.guest)
    return made


def boot_volume(instance: Instance) -> AttachedDisk | None:
    """The volume that an instance boots from; None where it has a root disk, or boots otherwise."""
    disks = instance.persistent.disks
    if any(disk.role == "root" for disk in disks):
        return None
    booted = (disk for disk in disks if disk.role == VOLUME and disk.HasField("boot_index"))
    return min(booted, key=lambda disk: disk.boot_index, default=None)


def request_blockers(request: pb.RebuildInstanceRequest) -> Iterator[ContractError]:
    """What no state of an instance can make good."""
    if not request.recreate:
        if request.HasField("spec"):
            yield InvalidArgumentError("a specification is for recreate only", field="spec")
        return
    if not request.HasField("spec"):
        yield InvalidArgumentError("recreate needs a specification", field="spec")
    on_volume = any(
        device.HasField("volume") and device.HasField("boot_index")
        for device in request.spec.block_devices
    )
    if request.reimage_boot_volume:
        why = "recreate leaves volumes as they are: rebuild the instance once more"
        yield InvalidArgumentError(why, field=_REIMAGE)
    elif on_volume and request.image.image_id and not request.spec.image.image_id:
        why = "the instance boots from a volume, which recreate leaves as it is"
        yield InvalidArgumentError(why, field="image.image_id")


def disk_blockers(
    request: pb.RebuildInstanceRequest, plan: InstancePlan, instance: Instance
) -> list[ContractError]:
    """What stands in the way of the disks that are to be made, or written."""
    return [*_volume_blockers(request, instance)] or [*name_blockers(plan, instance)]


def _volume_blockers(
    request: pb.RebuildInstanceRequest, instance: Instance
) -> Iterator[ContractError]:
    """A boot volume is written when that is said, and only then."""
    volume, wanted = boot_volume(instance), request.reimage_boot_volume
    if wanted and volume is None:
        yield InvalidArgumentError("the instance boots from no volume", field=_REIMAGE)
    elif wanted and not request.image.image_id:
        why = "the boot volume is to be written: with which image?"
        yield InvalidArgumentError(why, field="image.image_id")
    elif volume is not None and request.image.image_id and not wanted:
        why = "the instance boots from a volume: it is written where that is asked for"
        yield InvalidArgumentError(why, field=_REIMAGE)
    elif wanted and volume is not None:
        yield from _unwritable(volume)


def _unwritable(volume: AttachedDisk) -> Iterator[ContractError]:
    for wrong, why in (
        (volume.read_only, "it is read-only"),
        (volume.multi_attach, "several instances may have it"),
        (volume.device_type != spec_pb2.DISK_DEVICE_TYPE_DISK, "it is no hard disk"),
    ):
        if wrong:
            said = f"the boot volume cannot be written: {why}"
            yield UnsupportedError("reimage_boot_volume", why=said, field=_REIMAGE)
            return


def volume_image(
    request: pb.RebuildInstanceRequest, store: ImageStore
) -> tuple[StoredImage | None, list[ContractError]]:
    """The image that a boot volume is to be written with, or what is in the way of it."""
    if not request.reimage_boot_volume or not request.image.image_id:
        return None, []
    try:
        return store.find_disk(request.image.image_id, field="image.image_id"), []
    except ContractError as error:
        return None, [error]


def volume_too_small(image: StoredImage, size_bytes: int) -> ContractError:
    """The image does not fit."""
    return InvalidArgumentError(
        f"the boot volume of {size_bytes} bytes is smaller than the image"
        f" ({image.virtual_size_bytes} bytes)",
        field="image",
        reason="ROOT_DISK_TOO_SMALL",
    )


def name_blockers(plan: InstancePlan, instance: Instance) -> Iterator[ContractError]:
    """Disks that would have the name of one that is not made with the instance."""
    made = (*OWN_ROLES, "rescue")
    others = {disk.device_name for disk in instance.persistent.disks if disk.role not in made}
    for disk in plan.disks:
        if disk.volume is None and disk.device_name in others:
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
