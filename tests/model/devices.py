"""What the contract says of an instance's volume, interface, filters and console.

The volume is a file, "old", which a swap replaces by another one, "new", for good.
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
    unchanged,
)

_NOT_SUSPENDED = (RUNNING, PAUSED, SHUTDOWN)


def _attach_faults(life: Life) -> list[str]:
    if life.volume == "old" and not life.cut:
        return []
    differs = ["ATTACHMENT_DIFFERS"] if life.volume else []
    return [*differs, *in_states(life, *_NOT_SUSPENDED)]


def _detach_faults(life: Life) -> list[str]:
    return in_states(life, RUNNING, SHUTDOWN) if life.volume else []


def _attached_faults(life: Life, *states: int) -> list[str]:
    if not life.volume:
        raise RefusedError("VOLUME_NOT_ATTACHED")
    return in_states(life, *states)


def _swap_faults(life: Life) -> list[str]:
    if life.volume == "new" and not life.cut:
        return []
    clash = ["ATTACHMENT_DIFFERS"] if life.volume == "new" else []
    return [*clash, *_attached_faults(life, RUNNING, PAUSED)]


def _cut_faults(life: Life) -> list[str]:
    return _attached_faults(life, *_NOT_SUSPENDED) if not life.cut else []


def _merge_faults(life: Life) -> list[str]:
    return _attached_faults(life, *((RUNNING, PAUSED) if life.cut else (life.state,)))


DEVICE_RULES: Mapping[str, Rule] = {
    "AttachVolume": Rule(lambda life: replace(life, volume=life.volume or "old"), _attach_faults),
    "DetachVolume": Rule(lambda life: replace(life, volume="", cut=False), _detach_faults),
    "ExtendVolume": Rule(unchanged, lambda life: _attached_faults(life, *_NOT_SUSPENDED)),
    "SwapVolume": Rule(lambda life: replace(life, volume="new", cut=False), _swap_faults),
    "CreateVolumeSnapshot": Rule(lambda life: replace(life, cut=True), _cut_faults),
    "DeleteVolumeSnapshot": Rule(lambda life: replace(life, cut=False), _merge_faults),
    "AttachInterface": Rule(
        lambda life: replace(life, port=True),
        lambda life: [] if life.port else in_states(life, *_NOT_SUSPENDED),
    ),
    "DetachInterface": Rule(
        lambda life: replace(life, port=False),
        lambda life: in_states(life, RUNNING, SHUTDOWN) if life.port else [],
    ),
    "PlugInterfaces": Rule(unchanged),
    "UnplugInterfaces": Rule(
        unchanged,
        lambda life: ["WRONG_STATE"] if life.port and life.state in (RUNNING, PAUSED) else [],
        unknown="",
    ),
    "RefreshInstanceSecurityRules": Rule(unchanged),
    "EnsureFilteringRules": Rule(unchanged),
    "UnfilterInstance": Rule(
        unchanged,
        lambda life: [] if life.state == SHUTDOWN else ["WRONG_STATE"],
        unknown="",
    ),
    "GetConsole": Rule(unchanged, lambda life: in_states(life, RUNNING, PAUSED)),
}
