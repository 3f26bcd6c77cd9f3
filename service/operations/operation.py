"""One operation at work: what its verb sees (backends.work.Work) and what watchers see.

The message is only changed on the event loop; the verb runs on a worker thread
and hands every change over.

    PENDING ──▶ RUNNING ──▶ SUCCEEDED
                   ╰─▶ ROLLING_BACK ──▶ FAILED | CANCELLED
"""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from google.protobuf.message import Message
from virtrpc.v1 import operation_pb2

from backends.errors import (
    BlockedError,
    CancelledError,
    ContractError,
    NoRoomError,
    UnreachableError,
)
from backends.work import Undo, Validated, Work
from service.errors import record_of
from service.operations.journal import Journal, JournalError, Step
from service.verbs import Verb

State = operation_pb2.OperationState
_ENDED = (State.OPERATION_STATE_SUCCEEDED, State.OPERATION_STATE_FAILED,
          State.OPERATION_STATE_CANCELLED)  # fmt: skip


_ON_REQUEST = "the operation was cancelled on request"
# What keeps a call out, whatever the verb itself finds. Callable from any thread.
KeptOut = Callable[[], Sequence[ContractError]]


def nothing_keeps_out() -> Sequence[ContractError]:
    """The KeptOut of most calls."""
    return ()


class AbandonedError(CancelledError):
    """The daemon stops: the operation is left to the next start, as after a crash."""

    reason = "ABANDONED"


def unwritable(error: JournalError) -> NoRoomError:
    """What a caller is told of a journal that cannot be written."""
    return NoRoomError(str(error), reason="JOURNAL_UNWRITABLE")


def _written(write: "Future[None]") -> None:
    """Waits until a write is on disk."""
    try:
        write.result()
    except JournalError as error:
        raise unwritable(error) from error


class Checks:
    """The Work of a `validate_only` call: ends the verb when it has checked everything."""

    operation_id = ""

    def __init__(self, caller: str, kept_out: KeptOut) -> None:
        self.caller = caller
        self._kept_out = kept_out

    def ready(self, blockers: Sequence[ContractError] = ()) -> None:
        """See Work.ready: always raises."""
        raise_blockers([*self._kept_out(), *blockers])
        raise Validated

    def step(self, name: str, undo: Undo | None = None) -> None:  # noqa: ARG002 - see Work
        """Not reached by a verb that keeps its contract."""
        raise AssertionError(f"step {name!r} before ready()")

    def phase(self, name: str, *, percent: int, message: str = "") -> None:
        """Nobody watches a check."""

    def commit(self) -> None:
        """Not reached by a verb that keeps its contract."""
        raise AssertionError("commit before ready()")

    def checkpoint(self) -> None:
        """Nothing to cancel."""

    def wait(self, seconds: float) -> None:
        """Checks do not wait."""


def checked(
    method: Callable[[Message, Work], Message],
    request: Message,
    caller: str,
    kept_out: KeptOut = nothing_keeps_out,
) -> Message | None:
    """Only a verb's checks: raises what stands in the way. Its reply, where it has one to them."""
    try:
        method(request, Checks(caller, kept_out))
    except Validated as validated:
        return validated.reply
    return None


def raise_blockers(blockers: Sequence[ContractError]) -> None:
    """Raises the one error, or all of several as one; nothing where there is none."""
    if len(blockers) == 1:
        raise blockers[0]
    if blockers:
        raise BlockedError(blockers)


class LiveOperation:
    """An operation that has not ended, or has in this run of the daemon. It is a Work.

    `changed` is called on the event loop after every change of `message`.
    """

    def __init__(
        self,
        *,
        message: operation_pb2.Operation,
        verb: Verb,
        request: Message,
        lane: str,
        journal: Journal,
        loop: asyncio.AbstractEventLoop,
        changed: "Callable[[LiveOperation, bool], None]",
        kept_out: KeptOut = nothing_keeps_out,
    ) -> None:
        self.message = message
        self.verb = verb
        self.request = request
        self.lane = lane
        self.steps: list[Step] = []
        self.committed = False
        self.accepted = asyncio.Event()
        """It is on disk, or was refused."""
        self.refusal: ContractError | None = None
        """Why it was not accepted."""
        self.answered = asyncio.Event()
        """It has ended, or cannot go on for now: whoever waits may be answered."""
        self.ended = asyncio.Event()
        self.broken_off = False
        """It was cancelled and hung, so its machine was ended beneath it."""
        self.job: Future[Message] | None = None
        """Its place with the workers."""
        self._journal = journal
        self._loop = loop
        self._changed = changed
        self._kept_out = kept_out
        self._stop: CancelledError | None = None
        self._stopping = threading.Event()

    @property
    def operation_id(self) -> str:
        """The operation's id."""
        return self.message.operation_id

    @property
    def caller(self) -> str:
        """Identity that asked for it."""
        return self.message.caller

    @property
    def done(self) -> bool:
        """It has ended."""
        return self.message.state in _ENDED

    # What the verb calls, on its worker thread.

    def begin(self) -> None:
        """A worker has taken it up."""
        self._hand_over(self._began)

    def ready(self, blockers: Sequence[ContractError] = ()) -> None:
        """See Work.ready. What is past its point of no return is let in again."""
        kept_out = () if self.committed else self._kept_out()
        raise_blockers([*kept_out, *blockers])

    def step(self, name: str, undo: Undo | None = None) -> None:
        """See Work.step."""
        self.checkpoint()
        step = Step(self.steps[-1].number + 1 if self.steps else 0, name, undo)
        _written(self._journal.step(self.operation_id, step))
        self.steps.append(step)
        self._hand_over(lambda: self._add_step(name))

    def phase(self, name: str, *, percent: int, message: str = "") -> None:
        """See Work.phase."""
        self._hand_over(lambda: self.update(phase=name, progress_percent=percent, message=message))

    def commit(self) -> None:
        """See Work.commit."""
        _written(self._journal.commit(self.operation_id))
        self.committed = True

    def checkpoint(self) -> None:
        """See Work.checkpoint."""
        if self._stop is not None and not self.committed:
            raise self._stop

    def wait(self, seconds: float) -> None:
        """See Work.wait."""
        if self.committed:
            time.sleep(seconds)  # a cancel, which comes too late, is no reason to hurry
        else:
            self._stopping.wait(seconds)
        self.checkpoint()

    # What its owner calls, on the event loop.

    def cancel(self) -> None:
        """Asks the verb to stop at its next step or checkpoint, or before it has begun."""
        if not self.done and not self.message.cancel_requested:
            self._stop_for(CancelledError(_ON_REQUEST))
            self.update(cancel_requested=True)

    def abandon(self) -> None:
        """Makes the verb stop because the daemon does; nothing is undone or ended."""
        self._stop_for(AbandonedError("the daemon stops"))

    def outcome_of(self, error: ContractError) -> ContractError:
        """What it ends with: where it was broken off the hypervisor has not failed."""
        if self.broken_off and not self.committed and not isinstance(error, UnreachableError):
            return CancelledError(_ON_REQUEST)
        return error

    def refuse(self, error: ContractError) -> None:
        """It was never accepted: everyone who knows of it already is told so."""
        self.refusal = error
        self.message.error.CopyFrom(record_of(error))
        self.message.state, self.message.done = State.OPERATION_STATE_FAILED, True
        self._changed(self, False)
        self.accepted.set()
        self.answered.set()
        self.ended.set()

    def update(self, **fields: object) -> None:
        """Changes fields of the message and tells the watchers."""
        state = self.message.state
        for name, value in fields.items():
            setattr(self.message, name, value)
        self._changed(self, self.message.state != state)

    def end(self, ended: operation_pb2.Operation) -> None:
        """Takes the final message and releases everyone who waits."""
        self.message.CopyFrom(ended)
        self._changed(self, True)
        self.answered.set()
        self.ended.set()

    def _stop_for(self, reason: CancelledError) -> None:
        self._stop = reason
        self._stopping.set()
        if self.job is not None and not self.committed:
            self.job.cancel()  # no effect once it is at work

    def _began(self) -> None:
        if self.message.state == State.OPERATION_STATE_PENDING:
            self.message.started_at.GetCurrentTime()
            self.update(state=State.OPERATION_STATE_RUNNING)

    def _add_step(self, name: str) -> None:
        self.message.steps.add(name=name).started_at.GetCurrentTime()
        self._changed(self, False)

    def _hand_over(self, change: "Callable[[], None]") -> None:
        self._loop.call_soon_threadsafe(change)
