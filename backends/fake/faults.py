"""Faults and delays on demand: rules of the daemon, and labels of an instance.

A rule is `VERB[.STEP]=ACTION`; rules are separated by commas. VERB is an RPC in
snake case or `*`, STEP one of its journalled steps. ACTION is one of

    fail          HypervisorError          unreachable   UnreachableError
    timeout       TimedOutError            delay:SECONDS waits, until cancelled

The label `fake/VERB[.STEP]` with the value ACTION does the same for one instance.
One that is spawned with the label `fake/foreign` is afterwards as if somebody else
had made it.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence

from backends.errors import (
    ContractError,
    HypervisorError,
    InvalidArgumentError,
    TimedOutError,
    UnreachableError,
)
from backends.work import Undo, Work

LABEL_PREFIX = "fake/"
FOREIGN_LABEL = f"{LABEL_PREFIX}foreign"
_ERRORS: Mapping[str, Callable[[str], ContractError]] = {
    "fail": HypervisorError,
    "unreachable": UnreachableError,
    "timeout": TimedOutError,
}
_DELAY = re.compile(r"delay:[0-9]{1,6}(\.[0-9]{1,9})?")
_ACTIONS = "fail|unreachable|timeout|delay:SECONDS"


def parse_rules(text: str) -> dict[str, str]:
    """Rules by "VERB" or "VERB.STEP"; raises InvalidArgumentError."""
    rules = {}
    for rule in filter(None, (part.strip() for part in text.split(","))):
        where, equals, action = rule.partition("=")
        if not (equals and _is_action(action)):
            raise InvalidArgumentError(
                f"not a fault: {rule!r} (VERB[.STEP]={_ACTIONS})", field="fake_faults"
            )
        rules[where] = action
    return rules


def _is_action(text: str) -> bool:
    return text in _ERRORS or _DELAY.fullmatch(text) is not None


def _mistakes(labels: Mapping[str, str]) -> Iterator[ContractError]:
    """Labels that were meant as faults and are none."""
    for key, action in labels.items():
        if key.startswith(LABEL_PREFIX) and key != FOREIGN_LABEL and not _is_action(action):
            yield InvalidArgumentError(
                f"not a fault: {action!r} ({_ACTIONS})", field=f'spec.labels["{key}"]'
            )


class FaultyWork:
    """A Work at whose steps the faults of one verb and instance happen."""

    def __init__(
        self, work: Work, verb: str, rules: Mapping[str, str], labels: Mapping[str, str]
    ) -> None:
        self._work = work
        self._verb = verb
        self._rules = rules
        self._labels = labels

    @property
    def operation_id(self) -> str:
        """See Work."""
        return self._work.operation_id

    @property
    def caller(self) -> str:
        """See Work."""
        return self._work.caller

    def ready(self, blockers: Sequence[ContractError] = ()) -> None:
        """See Work; faults of the whole verb happen after it."""
        self._work.ready([*blockers, *_mistakes(self._labels)])
        self._happen(self._verb, "*")

    def step(self, name: str, undo: Undo | None = None) -> None:
        """See Work; faults of the step happen after it is journalled."""
        self._work.step(name, undo)
        self._happen(f"{self._verb}.{name}", f"*.{name}")

    def phase(self, name: str, *, percent: int, message: str = "") -> None:
        """See Work."""
        self._work.phase(name, percent=percent, message=message)

    def commit(self) -> None:
        """See Work."""
        self._work.commit()

    def checkpoint(self) -> None:
        """See Work."""
        self._work.checkpoint()

    def wait(self, seconds: float) -> None:
        """See Work."""
        self._work.wait(seconds)

    def _happen(self, *places: str) -> None:
        for place in places:
            action = self._labels.get(LABEL_PREFIX + place) or self._rules.get(place)
            if action:
                self._act(action, place)

    def _act(self, action: str, place: str) -> None:
        kind, _, seconds = action.partition(":")
        if kind == "delay":
            self._work.wait(float(seconds))
        elif kind in _ERRORS:
            raise _ERRORS[kind](f"injected fault at {place}")
