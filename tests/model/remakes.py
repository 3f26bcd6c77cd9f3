"""What the contract says of verbs that make an instance's machine anew.

─▶ rescued ─▶                 the same disks beside a rescue disk
─▶ stopped ─▶ finished ─▶ confirmed
      ╰──────────┴──────▶ reverted      another flavor, on one host
"""

from collections.abc import Mapping
from dataclasses import replace

from tests.model.life import (
    PAUSED,
    RUNNING,
    SHUTDOWN,
    Life,
    RefusedError,
    Rule,
    in_states,
    start_faults,
    unchanged,
)

PENDING = ("stopped", "finished")
_NOT_SUSPENDED = (RUNNING, PAUSED, SHUTDOWN)


def _boot_faults(life: Life) -> list[str]:
    """Why an instance cannot be booted from another disk."""
    rescued = ["WRONG_STATE"] if life.rescued else []
    return [*rescued, *in_states(life, *_NOT_SUSPENDED), *start_faults(life)]


def _rescued(life: Life) -> Life:
    return life if life.rescued else replace(life, rescued=True, state=RUNNING)


def _unrescued(life: Life) -> Life:
    return _come_up(replace(life, rescued=False)) if life.rescued else life


def _come_up(life: Life) -> Life:
    return replace(life, state=SHUTDOWN if start_faults(life) else RUNNING)


def _resize_faults(life: Life) -> list[str]:
    if life.resize in PENDING:
        return []
    rescued = ["WRONG_STATE"] if life.rescued else []
    return [*rescued, *in_states(life, *_NOT_SUSPENDED)]


def _stopped(life: Life) -> Life:
    if life.resize in PENDING:
        return life
    return replace(life, state=SHUTDOWN, resize="stopped", kept_large=life.large)


def _finish_faults(life: Life) -> list[str]:
    if life.resize in ("", "reverted"):
        raise RefusedError("NOT_PREPARED")
    return start_faults(replace(life, resize="finished")) if life.resize == "stopped" else []


def _finished(life: Life) -> Life:
    if life.resize != "stopped":
        return life
    return replace(life, state=RUNNING, resize="finished", large=True)


def _confirm_faults(life: Life) -> list[str]:
    for resize, reason in (("", "MIGRATION_NOT_FOUND"), ("reverted", "REVERTED")):
        if life.resize == resize:
            raise RefusedError(reason)
    return ["NOT_FINISHED"] if life.resize == "stopped" else []


def _revert_faults(life: Life) -> list[str]:
    for resize, reason in (("", "MIGRATION_NOT_FOUND"), ("confirmed", "CONFIRMED")):
        if life.resize == resize:
            raise RefusedError(reason)
    return []


def _reverted(life: Life) -> Life:
    """Flavor and disks come back; what belongs to others, or was said since, stays."""
    if life.resize not in PENDING:
        return life
    back = replace(life, resize="reverted", large=life.kept_large, kept_large=False, rescued=False)
    return _come_up(back)


REMAKE_RULES: Mapping[str, Rule] = {
    "RescueInstance": Rule(_rescued, lambda life: [] if life.rescued else _boot_faults(life)),
    "UnrescueInstance": Rule(_unrescued),
    "RebuildInstance": Rule(lambda life: replace(life, state=RUNNING), _boot_faults),
    "SnapshotInstance": Rule(unchanged),
    "MigrateDiskAndPowerOff": Rule(_stopped, _resize_faults),
    "FinishMigration": Rule(_finished, _finish_faults, unknown="NOT_PREPARED"),
    "ConfirmMigration": Rule(
        lambda life: replace(life, resize="confirmed", kept_large=False),
        _confirm_faults,
        unknown="MIGRATION_NOT_FOUND",
    ),
    "RevertMigration": Rule(_reverted, _revert_faults, unknown="MIGRATION_NOT_FOUND"),
}
RESIZES = tuple(verb for verb in REMAKE_RULES if "Migra" in verb)
