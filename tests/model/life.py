"""What the contract says of an instance's life, as tables: no daemon, no gRPC.

             ╭── pause ──▶ PAUSED ──╮
spawn ─▶ RUNNING ◀─ unpause ────────╯
          │  ▲ ╰── suspend ─▶ SUSPENDED ── resume, power on ─▶ RUNNING
power off ▼  │ power on, reboot
          SHUTDOWN

A verb is a rule: the faults for which it is refused, and what it makes of a life. Those of
devices, and those that make the machine anew, are in devices.py and remakes.py.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from virtrpc.v1.types_pb2 import (
    POWER_STATE_PAUSED,
    POWER_STATE_RUNNING,
    POWER_STATE_SHUTDOWN,
    POWER_STATE_SUSPENDED,
    PowerState,
)

RUNNING, PAUSED = POWER_STATE_RUNNING, POWER_STATE_PAUSED
SHUTDOWN, SUSPENDED = POWER_STATE_SHUTDOWN, POWER_STATE_SUSPENDED
_ANY = (RUNNING, PAUSED, SHUTDOWN, SUSPENDED)

NEXT: Mapping[str, Mapping[int, "PowerState.ValueType"]] = {
    "PauseInstance": {RUNNING: PAUSED, PAUSED: PAUSED},
    "UnpauseInstance": {RUNNING: RUNNING, PAUSED: RUNNING},
    "PowerOffInstance": dict.fromkeys(_ANY, SHUTDOWN),
    "PowerOnInstance": dict.fromkeys(set(_ANY) - {PAUSED}, RUNNING),
    "RebootInstance": dict.fromkeys(_ANY, RUNNING),
    "SuspendInstance": dict.fromkeys(set(_ANY) - {SHUTDOWN}, SUSPENDED),
    "ResumeInstance": {RUNNING: RUNNING, SUSPENDED: RUNNING},
    "ResumeInstanceOnHostBoot": dict.fromkeys(_ANY, RUNNING),
}
"""Verb → state before → state after; a state that is missing is WRONG_STATE."""
STARTS = frozenset(
    {"PowerOnInstance", "RebootInstance", "ResumeInstance", "ResumeInstanceOnHostBoot"}
)
"""Refused where the instance may not be powered on."""
OWN_VERBS = ("SpawnInstance", "DestroyInstance")
"""Verbs that no state refuses, nor an instance that is not there."""


class RefusedError(Exception):
    """The contract refuses; its arguments are the reasons that may be given."""


@dataclass(frozen=True)
class Life:
    """One instance."""

    state: "PowerState.ValueType" = RUNNING
    bootable: bool = True
    hidden: bool = False
    volume: str = ""
    """Which file its volume is: "old", "new"; empty: it has none."""
    cut: bool = False
    """The volume has a snapshot."""
    port: bool = False
    """It has an interface."""
    rescued: bool = False
    resize: str = ""
    """"stopped" or "finished", waiting for confirmation; "confirmed" or "reverted"; or none."""
    large: bool = False
    """In the larger flavor."""
    kept_large: bool = False
    """In which flavor a revert brings it back."""


@dataclass(frozen=True)
class Rule:
    """One verb of an instance that is there."""

    change: Callable[[Life], Life]
    faults: Callable[[Life], list[str]] = lambda _life: []
    """Reasons for which it is refused; raises RefusedError where nothing else is looked at."""
    unknown: str = "INSTANCE_NOT_FOUND"
    """Why it is refused where there is no instance; empty: it succeeds."""


def start_faults(life: Life) -> list[str]:
    """Why an instance may not be started."""
    faults = bootable_faults(life)
    return [*faults, "SOFT_DELETED"] if life.hidden else faults


def bootable_faults(life: Life) -> list[str]:
    """Why an instance may not be started, even to be restored."""
    if life.resize == "stopped":
        return ["MIGRATION_PENDING"]
    return [] if life.bootable else ["NOT_BOOTABLE"]


def in_states(life: Life, *allowed: int) -> list[str]:
    """That it is in one of these states."""
    return [] if life.state in allowed else ["WRONG_STATE"]


def unchanged(life: Life) -> Life:
    """What a verb makes of a life that is none of its business."""
    return life


def _power(verb: str) -> Rule:
    def faults(life: Life) -> list[str]:
        wrong = in_states(life, *NEXT[verb])
        return [*wrong, *start_faults(life)] if verb in STARTS else wrong

    return Rule(lambda life: replace(life, state=NEXT[verb][life.state]), faults)


def _hidden(life: Life) -> Life:
    """Off; memory that was saved is kept."""
    return replace(life, hidden=True, state=life.state if life.state == SUSPENDED else SHUTDOWN)


def _restored(life: Life) -> Life:
    return replace(life, hidden=False, state=RUNNING) if life.hidden else life


LIFE_RULES: Mapping[str, Rule] = {
    **{verb: _power(verb) for verb in NEXT},
    "SoftDeleteInstance": Rule(_hidden),
    "RestoreInstance": Rule(_restored, bootable_faults),
    "SetInstanceBootable": Rule(lambda life: replace(life, bootable=not life.bootable)),
}
