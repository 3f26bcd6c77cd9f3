"""Why a volume is not attached, changed or let go: the errors of VolumeService."""

from collections.abc import Collection

from backends.errors import (
    AlreadyExistsError,
    BusyError,
    ContractError,
    InvalidArgumentError,
    NoRoomError,
    NotFoundError,
    TimedOutError,
    UnreachableError,
    WrongStateError,
)


def path_not_allowed(field: str) -> ContractError:
    """The configuration does not allow to attach from there."""
    why = "the path is not below a directory that volumes may be attached from (--volume-dir)"
    return InvalidArgumentError(why, reason="PATH_NOT_ALLOWED", field=field)


def path_misleads(field: str, what: str) -> ContractError:
    """It leads to something else; `what` it should be."""
    return InvalidArgumentError(
        f"the path is not that of {what}", reason="PATH_NOT_ALLOWED", field=field
    )


def volume_not_found(why: str, field: str) -> ContractError:
    """There is no such file, device, export, LUN or image."""
    return NotFoundError(why, reason="VOLUME_NOT_FOUND", field=field)


def storage_unreachable(why: str) -> ContractError:
    """Its server does not answer."""
    return UnreachableError(why, reason="STORAGE_UNREACHABLE")


def storage_timeout(seconds: float) -> ContractError:
    """Its server did not answer in time."""
    why = f"the storage did not answer within {seconds:g} s"
    return TimedOutError(why, reason="STORAGE_TIMEOUT")


def storage_refused(why: str) -> ContractError:
    """Its server does not accept us."""
    return WrongStateError(why, reason="STORAGE_REFUSED")


def unsafe_volume(why: str, field: str) -> ContractError:
    """Its header refers to what the instance has no business with."""
    return WrongStateError(why, reason="UNSAFE_VOLUME", field=field)


def encryption_mismatch(why: str, field: str) -> ContractError:
    """No such header, or the passphrase does not open it."""
    return WrongStateError(why, reason="ENCRYPTION_MISMATCH", field=field)


def volume_not_attached(volume_id: str) -> ContractError:
    """The instance does not have it, or not by this attachment."""
    return NotFoundError(
        f"the instance has no volume {volume_id} by that attachment",
        reason="VOLUME_NOT_ATTACHED",
        metadata={"volume_id": volume_id},
    )


def attachment_differs(why: str) -> ContractError:
    """It is attached in another way."""
    return AlreadyExistsError(f"{why}: detach first", reason="ATTACHMENT_DIFFERS")


def device_name_taken(name: str) -> ContractError:
    """Another disk of the instance has the name."""
    return AlreadyExistsError(
        f"another disk has the name {name}", reason="DEVICE_NAME_TAKEN", field="device.device_name"
    )


def boot_index_taken(boot_index: int) -> ContractError:
    """Another disk of the instance has that place."""
    return WrongStateError(
        f"another disk has the boot_index {boot_index}",
        reason="BOOT_INDEX_TAKEN",
        field="device.boot_index",
    )


def volume_in_use(volume_id: str, instance_ids: Collection[str]) -> ContractError:
    """Another instance of the host has it."""
    return WrongStateError(
        f"volume {volume_id} is attached to another instance and not for several",
        reason="VOLUME_IN_USE",
        metadata={"instance_ids": ",".join(sorted(instance_ids))},
    )


def volume_busy(volume_id: str) -> ContractError:
    """Another call attaches it at this moment."""
    return BusyError(
        f"volume {volume_id} is being attached elsewhere",
        reason="VOLUME_BUSY",
        metadata={"volume_id": volume_id},
    )


def not_hot_pluggable(why: str) -> ContractError:
    """It cannot come or go while the machine runs."""
    return WrongStateError(f"{why}: power off first", reason="NOT_HOT_PLUGGABLE")


def no_slot(why: str) -> ContractError:
    """The machine has no place left."""
    return NoRoomError(why, reason="NO_SLOT")


def device_not_released(name: str, seconds: float) -> ContractError:
    """The guest did not react."""
    return TimedOutError(
        f"the guest did not release {name} within {seconds:g} s; it is still attached",
        reason="DEVICE_NOT_RELEASED",
    )


def device_release_refused(name: str) -> ContractError:
    """The guest said no."""
    return WrongStateError(
        f"the guest refuses to release {name}; it is still attached",
        reason="DEVICE_RELEASE_REFUSED",
    )


def volume_too_small(why: str) -> ContractError:
    """The storage has less room than it takes."""
    return WrongStateError(why, reason="VOLUME_TOO_SMALL")


def shrink_refused(size_bytes: int) -> ContractError:
    """Nothing is ever cut off."""
    return WrongStateError(
        f"the volume has {size_bytes} bytes and is never made smaller", reason="SHRINK_REFUSED"
    )
