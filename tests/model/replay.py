"""What the model makes of operations that have ended: the lives that instances may have now."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace

from virtrpc.v1.operation_pb2 import OPERATION_STATE_SUCCEEDED, Operation

from service.verbs import all_verbs
from tests.model.life import PAUSED, RUNNING, Life, RefusedError
from tests.model.remakes import RESIZES
from tests.model.verbs import VERBS, after

Lives = frozenset[Life | None]
_BESIDE_OTHERS = tuple(verb.name for verb in all_verbs().values() if verb.options.concurrent)
"""They change no life, and what they looked at may only have been on its way."""


class Replay:
    """Tells lives from operations, in the order of their ends.

    Old operations are forgotten, so a life is told from its last known beginning: a destroy. An
    operation does not say what it was asked for: the `request_id` of a resize begins with its
    number, and all else has one volume and one interface for each instance.
    """

    def __init__(self, operations: Iterable[Operation]) -> None:
        self.lives: dict[str, Lives] = {}
        self.faults: list[str] = []
        """What succeeded and could not, by all that was told before."""
        self._resize: dict[str, str] = {}
        self._resizes: defaultdict[str, set[str]] = defaultdict(set)
        for operation in sorted(operations, key=lambda one: one.ended_at.ToNanoseconds()):
            told = operation.verb in VERBS and operation.verb not in _BESIDE_OTHERS
            if told and operation.done:
                self._follow(operation)

    def _follow(self, operation: Operation) -> None:
        instance_id, verb = operation.instance_id, operation.verb
        succeeded = operation.state == OPERATION_STATE_SUCCEEDED
        if verb == "DestroyInstance" and succeeded:
            self.lives[instance_id] = frozenset([None])
            self._resize.pop(instance_id, None)
        known = self.lives.get(instance_id)
        if known is None or (succeeded and not self._is_of_present_resize(operation)):
            return
        possible = frozenset(made for life in known for made in _after(life, verb))
        if not succeeded:
            interrupted = {booted_anew(life) for life in known}
            self.lives[instance_id] = known | possible | interrupted
        elif possible:
            self.lives[instance_id] = possible
        else:
            self.faults.append(f"{verb} {operation.operation_id} succeeded, with {set(known)}")

    def _is_of_present_resize(self, operation: Operation) -> bool:
        """Whether it changes anything: what comes late for an earlier resize does not."""
        if operation.verb not in RESIZES:
            return True
        instance_id, number = operation.instance_id, operation.request_id.partition("/")[0]
        begins = operation.verb == "MigrateDiskAndPowerOff"
        if begins and number not in self._resizes[instance_id]:
            self._resizes[instance_id].add(number)
            self._resize[instance_id] = number
            self.lives[instance_id] = frozenset(
                life and replace(life, resize="") for life in self.lives.get(instance_id, ())
            )
        return self._resize.get(instance_id) == number


def _after(life: Life | None, verb: str) -> list[Life | None]:
    """What a verb makes of a life, if it can."""
    try:
        return [after(life, verb)]
    except RefusedError:
        return []


def booted_anew(life: Life | None) -> Life | None:
    """What failed after it had switched a guest off has booted it anew."""
    paused = life is not None and life.state == PAUSED
    return replace(life, state=RUNNING) if life is not None and paused else life
