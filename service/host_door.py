"""The host's door: open, or closed to new instances; those that are there may stay."""

from collections.abc import Sequence

from google.protobuf.message import Message
from virtrpc.v1.event_pb2 import Event, EventType

from backends.contract import Observer
from backends.errors import ContractError, WrongStateError
from backends.work import Undo, Work
from service.host_state import Acceptance, HostState
from service.truth import Truth
from service.verbs import Verb

UNDO = "host.acceptance"


class HostDoor:
    """Callable from any thread."""

    def __init__(self, state: HostState, truth: Truth, observer: Observer) -> None:
        self.state = state
        self._truth = truth
        self._observer = observer

    def keeps_out(self, verb: Verb, request: Message) -> Sequence[ContractError]:
        """Why a call is refused that would bring an instance; empty where it is not."""
        acceptance = self.state.acceptance
        if acceptance.accepts or not verb.brings_instance(request):
            return ()
        if self._truth.manages(getattr(request, "instance_id", "")):
            return ()  # a repeat of what has had its effect
        return (_closed(acceptance),)

    def accept(self, acceptance: Acceptance) -> None:
        """From now on it is so, and who watches is told; nothing where it was."""
        if acceptance != self.state.acceptance:
            self.state.accept(acceptance)
            detail = "enabled" if acceptance.accepts else "disabled"
            self._observer.event(Event(type=EventType.EVENT_TYPE_HOST_CHANGED, detail=detail))

    def change(self, acceptance: Acceptance, work: Work, *, step: str) -> None:
        """As `accept`, as a step of a verb that is undone when it fails."""
        before = self.state.acceptance.to_json()
        work.step(step, Undo(UNDO, {"before": before}))
        self.accept(acceptance)

    def undo(self, before: str) -> None:
        """As it was."""
        self.accept(Acceptance.from_json(before))


def _closed(acceptance: Acceptance) -> WrongStateError:
    why = f": {acceptance.reason}" if acceptance.reason else ""
    return WrongStateError(
        f"the host accepts no new instances{why}",
        reason="HOST_DISABLED",
        metadata={
            "disabled_reason": acceptance.reason,
            "maintenance": "true" if acceptance.maintenance else "false",
        },
    )
