"""All verbs of the model, and the ways through what they make of an instance."""

import random
from collections import deque
from collections.abc import Iterator, Mapping, Sequence

from tests.model.devices import DEVICE_RULES
from tests.model.life import LIFE_RULES, OWN_VERBS, SHUTDOWN, SUSPENDED, Life, RefusedError, Rule
from tests.model.remakes import REMAKE_RULES

RULES: Mapping[str, Rule] = {**LIFE_RULES, **DEVICE_RULES, **REMAKE_RULES}
VERBS = (*OWN_VERBS, *RULES)
_ALWAYS_BOOTS = ("RebootInstance", "RebuildInstance")
_BOOTS = (*_ALWAYS_BOOTS, "RescueInstance", "UnrescueInstance", "RevertMigration")
_POWER = ("PowerOffInstance", "PowerOnInstance", "PauseInstance", "SuspendInstance")
_INTENT = ("SetInstanceBootable", "SoftDeleteInstance", "RestoreInstance")
_RESCUES = ("RescueInstance", "UnrescueInstance", "RebuildInstance", "SnapshotInstance")
FAMILIES: Mapping[str, Sequence[str]] = {
    "life": (*OWN_VERBS, *LIFE_RULES),
    "volume": (*OWN_VERBS, *_POWER, *(verb for verb in DEVICE_RULES if "Volume" in verb)),
    "interface": (*OWN_VERBS, *_POWER, *(verb for verb in DEVICE_RULES if "Volume" not in verb)),
    "rescue": (*OWN_VERBS, *_POWER, *_INTENT, *_RESCUES),
    "console": (
        *(*OWN_VERBS, *_POWER, "UnpauseInstance", "RebootInstance"),
        *("GetConsole", "RescueInstance", "UnrescueInstance"),
    ),
    "resize": (
        *(*OWN_VERBS, *_INTENT, "PowerOnInstance"),
        *(verb for verb in REMAKE_RULES if "Migra" in verb),
    ),
}
"""Verbs of which every order is tried; all together they would take hours."""


def after(life: Life | None, verb: str) -> Life | None:
    """What a verb makes of an instance; None is one that is not there. Raises RefusedError."""
    if verb == "SpawnInstance":
        if life is not None and (life.large or life.port):
            raise RefusedError("SPEC_DIFFERS")
        return life or Life()
    if verb == "DestroyInstance":
        return None
    rule = RULES[verb]
    if life is None:
        if rule.unknown:
            raise RefusedError(rule.unknown)
        return None
    faults = rule.faults(life)
    if faults:
        # Several at once come as BLOCKED, with each of them.
        raise RefusedError(*(faults if len(faults) == 1 else ["BLOCKED"]))
    return rule.change(life)


def outcome(life: Life | None, verb: str) -> Life | None:
    """What a verb leaves, also when it is refused."""
    try:
        return after(life, verb)
    except RefusedError:
        return life


def ends_boot(before: Life | None, verb: str, life: Life | None) -> bool:
    """Whether the machine that ran before runs no more, so that nothing of it is good any more."""
    if life is None or life.state in (SHUTDOWN, SUSPENDED):
        return True
    return verb in _BOOTS and (before != life or verb in _ALWAYS_BOOTS)


def walk(verbs: Sequence[str]) -> Iterator[str]:
    """Verbs that, called one after the other, go every way there is out of every life there is."""
    life: Life | None = None
    untried: dict[Life | None, list[str]] = {}
    while True:
        untried.setdefault(life, list(verbs))
        way = _way_to_untried(life, verbs, untried)
        if way is None:
            return
        for verb in way:
            yield verb
            life = outcome(life, verb)
        verb = untried[life].pop()
        yield verb
        life = outcome(life, verb)


def wander(verbs: Sequence[str], *, seed: str, steps: int) -> Iterator[str]:
    """Verbs by chance, few of which are refused or end the life."""
    chance = random.Random(seed)
    life: Life | None = None
    for _ in range(steps):
        verb = chance.choice(verbs)
        if verb == "DestroyInstance" and chance.random() < 0.7:
            verb = chance.choice(verbs)
        if life is None and chance.random() < 0.5:
            verb = "SpawnInstance"
        yield verb
        life = outcome(life, verb)


def _way_to_untried(
    start: Life | None, verbs: Sequence[str], untried: Mapping[Life | None, list[str]]
) -> list[str] | None:
    """The shortest; None: everything was tried."""
    ways: dict[Life | None, list[str]] = {start: []}
    queue = deque([start])
    while queue:
        life = queue.popleft()
        if untried.get(life, verbs):
            return ways[life]
        for verb in verbs:
            following = outcome(life, verb)
            if following not in ways:
                ways[following] = [*ways[life], verb]
                queue.append(following)
    return None
