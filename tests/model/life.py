"""What the contract says of an instance's life, as a table: no daemon, no gRPC.

             ╭── pause ──▶ PAUSED ──╮
spawn ─▶ RUNNING ◀─ unpause ────────╯
          │  ▲ ╰── suspend ─▶ SUSPENDED ── resume, power on ─▶ RUNNING
power off ▼  │ power on, reboot
          SHUTDOWN
"""

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from virtrpc.v1.types_pb2 import (
    POWER_STATE_PAUSED,
    POWER_STATE_RUNNING,
    POWER_STATE_SHUTDOWN,
    POWER_STATE_SUSPENDED,
    PowerState,
)

_ANY = (POWER_STATE_RUNNING, POWER_STATE_PAUSED, POWER_STATE_SHUTDOWN, POWER_STATE_SUSPENDED)

NEXT: Mapping[str, Mapping[int, "PowerState.ValueType"]] = {
    "PauseInstance": {
        POWER_STATE_RUNNING: POWER_STATE_PAUSED,
        POWER_STATE_PAUSED: POWER_STATE_PAUSED,
    },
    "UnpauseInstance": {
        POWER_STATE_RUNNING: POWER_STATE_RUNNING,
        POWER_STATE_PAUSED: POWER_STATE_RUNNING,
    },
    "PowerOffInstance": dict.fromkeys(_ANY, POWER_STATE_SHUTDOWN),
    "PowerOnInstance": dict.fromkeys(set(_ANY) - {POWER_STATE_PAUSED}, POWER_STATE_RUNNING),
    "RebootInstance": dict.fromkeys(_ANY, POWER_STATE_RUNNING),
    "SuspendInstance": dict.fromkeys(set(_ANY) - {POWER_STATE_SHUTDOWN}, POWER_STATE_SUSPENDED),
    "ResumeInstance": {
        POWER_STATE_RUNNING: POWER_STATE_RUNNING,
        POWER_STATE_SUSPENDED: POWER_STATE_RUNNING,
    },
}
"""Verb → state before → state after; a state that is missing is WRONG_STATE."""
STARTS = frozenset({"PowerOnInstance", "RebootInstance", "ResumeInstance", "RestoreInstance"})
"""Refused as NOT_BOOTABLE where the instance may not be powered on, and but for the
restoration as SOFT_DELETED where it is hidden."""
VERBS = (
    "SpawnInstance",
    *NEXT,
    "SoftDeleteInstance",
    "RestoreInstance",
    "SetInstanceBootable",
    "DestroyInstance",
)


class RefusedError(Exception):
    """The contract refuses; its arguments are the reasons that may be given."""


@dataclass(frozen=True)
class Life:
    """One instance."""

    state: "PowerState.ValueType" = POWER_STATE_RUNNING
    bootable: bool = True
    hidden: bool = False


def after(life: Life | None, verb: str) -> Life | None:
    """What a verb makes of an instance; None is one that is not there. Raises RefusedError."""
    if verb == "SpawnInstance":
        return life or Life()
    if verb == "DestroyInstance":
        return None
    if life is None:
        raise RefusedError("INSTANCE_NOT_FOUND")
    faults = _faults(life, verb)
    if faults:
        # Several at once come as BLOCKED, with each of them.
        raise RefusedError(*(faults if len(faults) == 1 else ["BLOCKED"]))
    return _changed(life, verb)


def _faults(life: Life, verb: str) -> list[str]:
    faults = []
    if verb in NEXT and life.state not in NEXT[verb]:
        faults.append("WRONG_STATE")
    if verb in STARTS and not life.bootable:
        faults.append("NOT_BOOTABLE")
    if verb in STARTS - {"RestoreInstance"} and life.hidden:
        faults.append("SOFT_DELETED")
    return faults


def _changed(life: Life, verb: str) -> Life:
    if verb == "SetInstanceBootable":
        return replace(life, bootable=not life.bootable)
    if verb == "SoftDeleteInstance":
        return life if life.hidden else replace(life, hidden=True, state=POWER_STATE_SHUTDOWN)
    if verb == "RestoreInstance":
        return replace(life, hidden=False, state=POWER_STATE_RUNNING) if life.hidden else life
    return replace(life, state=NEXT[verb][life.state])


def walk() -> Iterator[str]:
    """Verbs that, called one after the other, go every way there is out of every life there is."""
    life: Life | None = None
    untried: dict[Life | None, list[str]] = {}
    while True:
        untried.setdefault(life, list(VERBS))
        way = _way_to_untried(life, untried)
        if way is None:
            return
        for verb in way:
            yield verb
            life = outcome(life, verb)
        verb = untried[life].pop()
        yield verb
        life = outcome(life, verb)


def outcome(life: Life | None, verb: str) -> Life | None:
    """What a verb leaves, also when it is refused."""
    try:
        return after(life, verb)
    except RefusedError:
        return life


def _way_to_untried(
    start: Life | None, untried: Mapping[Life | None, list[str]]
) -> list[str] | None:
    """The shortest; None: everything was tried."""
    ways: dict[Life | None, list[str]] = {start: []}
    queue = deque([start])
    while queue:
        life = queue.popleft()
        if untried.get(life, VERBS):
            return ways[life]
        for verb in VERBS:
            following = outcome(life, verb)
            if following not in ways:
                ways[following] = [*ways[life], verb]
                queue.append(following)
    return None
