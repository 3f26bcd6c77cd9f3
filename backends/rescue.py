"""What every backend asks of a rescue, and tells the rescue system, in the same way."""

from virtrpc.v1 import spec_pb2
from virtrpc.v1.instance_pb2 import Instance
from virtrpc.v1.types_pb2 import PowerState

from backends.config_drive import ConfigDrive, config_drive
from backends.errors import ContractError, WrongStateError
from backends.images import ImageStore, StoredImage
from backends.intent import resume_blockers
from backends.plan import InstancePlan
from backends.power_states import NOT_SUSPENDED, power_blockers

RESCUE_DRIVE = "rescue-config.iso"
"""File of the rescue system's config drive, in the instance's folder."""


def rescue_image(
    images: ImageStore, image_id: str
) -> tuple[StoredImage | None, list[ContractError]]:
    """The image to boot from, or what is in the way of it."""
    try:
        return images.find_disk(image_id, field="rescue_image_id"), []
    except ContractError as error:
        return None, [error]


def reboot_blockers(instance: Instance) -> list[ContractError]:
    """What stands in the way of booting an instance from another disk, apart from its image."""
    return [
        *_not_rescued(instance),
        *power_blockers(instance, *NOT_SUSPENDED),
        *resume_blockers(instance, PowerState.POWER_STATE_RUNNING),
    ]


def _not_rescued(instance: Instance) -> list[ContractError]:
    if not instance.rescued:
        return []
    why = f"the instance is in rescue with image {instance.rescue_image_id}: UnrescueInstance"
    return [WrongStateError(why)]


def may_run(instance: Instance) -> bool:
    """Whether an instance that leaves rescue is started."""
    return not resume_blockers(instance, PowerState.POWER_STATE_RUNNING)


def rescue_drive(instance: Instance, admin_password: str) -> ConfigDrive | None:
    """What the rescue system is told, where it or the instance itself is told anything.

    The instance's secrets are none of its business, nor are its user data.
    """
    spec = spec_pb2.InstanceSpec()
    spec.CopyFrom(instance.spec)
    if not (spec.HasField("guest") or admin_password):
        return None
    spec.guest.admin_password = admin_password
    return config_drive(InstancePlan(instance.instance_id, spec))
