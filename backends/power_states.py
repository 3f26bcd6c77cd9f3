"""Which power states a verb allows, said alike by every backend."""

from virtrpc.v1.instance_pb2 import Instance
from virtrpc.v1.types_pb2 import PowerState

from backends.errors import ContractError, WrongStateError

NOT_SUSPENDED = (
    PowerState.POWER_STATE_RUNNING,
    PowerState.POWER_STATE_PAUSED,
    PowerState.POWER_STATE_SHUTDOWN,
    PowerState.POWER_STATE_CRASHED,
)
"""No memory is kept that would be lost when the machine boots anew."""

_SAVABLE = (
    PowerState.POWER_STATE_RUNNING,
    PowerState.POWER_STATE_PAUSED,
    PowerState.POWER_STATE_SUSPENDED,
)


def power_blockers(instance: Instance, *allowed: "PowerState.ValueType") -> list[ContractError]:
    """That an instance is in one of these power states."""
    if instance.power_state in allowed:
        return []
    state = PowerState.Name(instance.power_state).removeprefix("POWER_STATE_")
    return [WrongStateError(f"the instance is {state}", metadata={"power_state": state})]


def bootable_blockers(instance: Instance) -> list[ContractError]:
    """That an instance may be powered on."""
    if instance.pending_migration_id:
        return [pending(instance.pending_migration_id)]
    return _allowed_blockers(instance)


def start_blockers(instance: Instance) -> list[ContractError]:
    """That an instance may be powered on now: one that is hidden only by its restoration."""
    return [*bootable_blockers(instance), *hidden_blockers(instance)]


def save_blockers(instance: Instance) -> list[ContractError]:
    """That the memory of an instance can be saved now, or has been.

    A share's daemon has a part of its device's state, and QEMU does not save that.
    """
    blockers = power_blockers(instance, *_SAVABLE)
    if instance.shares and instance.power_state != PowerState.POWER_STATE_SUSPENDED:
        why = "the instance has shares, whose state cannot be saved"
        blockers.append(WrongStateError(why, reason="SHARE_NOT_SAVED"))
    return blockers


def wanted_blockers(instance: Instance) -> list[ContractError]:
    """As `start_blockers`, for the verb that a pending migration waits for."""
    return [*_allowed_blockers(instance), *hidden_blockers(instance)]


def _allowed_blockers(instance: Instance) -> list[ContractError]:
    if instance.bootable:
        return []
    return [WrongStateError("the instance may not be powered on", reason="NOT_BOOTABLE")]


def hidden_blockers(instance: Instance) -> list[ContractError]:
    """That an instance is not soft-deleted."""
    if not instance.HasField("reclaim_at"):
        return []
    why = "the instance is soft-deleted: restore it first"
    return [WrongStateError(why, reason="SOFT_DELETED")]


def pending(migration_id: str) -> ContractError:
    """That an instance has a migration that waits for confirmation."""
    return WrongStateError(
        f"migration {migration_id} waits for ConfirmMigration or RevertMigration",
        reason="MIGRATION_PENDING",
        metadata={"migration_id": migration_id},
    )


POST_COPY_BROKEN = "post-copy-broken"
"""Power state's reason of a guest that stands still, for memory that it lacks is elsewhere."""
