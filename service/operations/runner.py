"""Mutations as operations: accepted, one at a time per lane, taken up again after a restart.

An operation belongs to the daemon. Callers only wait for it; that they go away,
or that their deadline passes, changes nothing here.
"""

import asyncio
import uuid
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from typing import Protocol, TypeVar

import structlog
from google.protobuf.message import Message
from virtrpc.v1.operation_pb2 import Operation

from backends.errors import ContractError, UnreachableError
from backends.work import Undo
from service.admission import Queue
from service.errors import (
    Interrupted,
    RecordedError,
    ShuttingDownError,
    StartingError,
    record_of,
)
from service.operations.book import OperationBook, recorded_request
from service.operations.execution import Execution, Method
from service.operations.journal import Entry, Journal, JournalError
from service.operations.lanes import Lanes
from service.operations.operation import LiveOperation, State, unwritable
from service.pools import Pools
from service.verbs import Verb

MAX_LIVE_OPERATIONS = 256
Reply = TypeVar("Reply", bound=Message)
log = structlog.get_logger()


KeepsOut = Callable[[Verb, Message], Sequence[ContractError]]


def _keeps_nothing_out(_verb: Verb, _request: Message) -> Sequence[ContractError]:
    return ()


class Listener(Protocol):
    """Who is told of operations, on the event loop."""

    def operation_changed(self, operation: Operation) -> None:
        """An operation was accepted, changed its state, or ended."""


class Operations:
    """Starts, cancels, finishes and recovers operations. Event loop only."""

    def __init__(
        self,
        *,
        journal: Journal,
        book: OperationBook,
        pools: Pools,
        undo: Callable[[Undo], None],
        break_off: Callable[[str], None],
        listener: Listener,
        reachable: asyncio.Event,
        keeps_out: KeepsOut = _keeps_nothing_out,
    ) -> None:
        self.book = book
        self.closing = False
        """The daemon stops: nothing more is accepted."""
        self.reachable = reachable
        """Set while the hypervisor can be reached."""
        self._journal = journal
        self._pools = pools
        self._break_off = break_off
        self._listener = listener
        self.keeps_out = keeps_out
        """What keeps calls of a verb out, beside what the verb itself finds."""
        self._live: dict[str, LiveOperation] = {}
        self._lanes = Lanes(self._broken_off)
        self._queue = Queue("OPERATION", limit=MAX_LIVE_OPERATIONS)
        self._tasks: set[asyncio.Task[None]] = set()
        self._execution = Execution(
            journal=journal,
            pools=pools,
            undo=undo,
            reachable=reachable,
            closing=lambda: self.closing,
            leave=self._leave,
        )
        self._left: list[tuple[LiveOperation, Method]] = []
        self._recovered = False

    async def start(
        self, verb: Verb, request: Message, method: Method, *, caller: str
    ) -> Operation:
        """Accepts a mutation, or finds the operation that its request_id began before.

        Returns when the operation is on disk. Raises BusyError where its lane is
        taken, OverloadedError where too many are live, NoRoomError where the
        journal cannot be written.
        """
        lane = verb.lane(request)
        known = self.book.repeated(verb, lane, request)
        if known is not None:
            return await self._on_disk(known)
        self.require_open()
        self._refuse_if_full()
        live = self._live_operation(_new_message(verb, request, caller), verb, request, lane)
        self._lanes.claim(live)
        recorded = recorded_request(request)
        self._enter(live, recorded)
        self._spawn(self._accept(live, recorded, method))
        return await self._on_disk(live.operation_id)

    async def outcome(self, operation: Operation) -> Operation:
        """Waits until the operation has ended, or cannot go on for now."""
        live = self._live.get(operation.operation_id)
        if live is not None:
            await live.answered.wait()
        return operation

    async def response(self, operation: Operation, response_class: type[Reply]) -> Reply:
        """Waits for an operation, gives its result; raises the error that it ended with.

        Raises UnreachableError where it cannot go on for now.
        """
        await self.outcome(operation)
        if operation.HasField("error"):
            raise RecordedError(operation.error)
        if not operation.done:
            raise UnreachableError(
                "the operation is not done yet and goes on by itself: repeat with the request_id",
                metadata={"operation_id": operation.operation_id},
            )
        response = response_class()
        operation.result.Unpack(response)
        return response

    def cancellable(self, operation_id: str) -> bool:
        """Whether an operation can be stopped; raises NotFoundError."""
        live = self._live.get(self.book.get(operation_id).operation_id)
        return live is None or not live.verb.options.preempts

    def live_count(self) -> int:
        """How many have not ended."""
        return len(self._live)

    def live_of(self, instance_id: str) -> list[Operation]:
        """Those of an instance that have not ended."""
        wanted = instance_id.lower()
        every = (live.message for live in self._live.values())
        return [operation for operation in every if operation.instance_id.lower() == wanted]

    def cancel(self, operation_id: str) -> Operation:
        """Asks an operation to stop; raises NotFoundError."""
        operation = self.book.get(operation_id)
        live = self._live.get(operation.operation_id)
        if live is not None:
            live.cancel()
        return operation

    def load(self, entries: Sequence[Entry], bindings: Mapping[str, tuple[Verb, Method]]) -> None:
        """Knows again what earlier runs of the daemon did; call before anything is served.

        `bindings` are the verbs by name, with what carries them out.
        """
        lanes = [_recorded_lane(entry, bindings) for entry in entries]
        last_ended = {lane: i for i, lane in enumerate(lanes) if lane and not entries[i].live}
        for number, (entry, lane) in enumerate(zip(entries, lanes, strict=True)):
            binding = bindings.get(entry.operation.verb)
            if entry.live and last_ended.get(lane, -1) > number:
                self._end_is_missing(entry)
            elif entry.live and binding is not None:
                self._left.append((self._left_over(entry, binding[0]), binding[1]))
                continue
            elif entry.live:
                log.error("operation of an unknown verb is left alone", verb=entry.operation.verb)
            self.book.add(entry.operation, lane=lane, recorded=entry.request)

    def _end_is_missing(self, entry: Entry) -> None:
        """It had ended before the next one of its lane began: nothing may be undone now."""
        error = Interrupted("its end is not on disk", reason="OUTCOME_NOT_RECORDED")
        entry.operation.error.CopyFrom(record_of(error))
        entry.operation.state, entry.operation.done = State.OPERATION_STATE_FAILED, True
        entry.operation.ended_at.GetCurrentTime()
        self._journal.end(entry.operation)

    def recover(self) -> None:
        """Takes up what an earlier run of the daemon left; call when the backend is open."""
        self._recovered = True
        for live, method in self._left:
            self._spawn(self._take_up(live, method))
        self._left.clear()

    async def drain(self, grace_s: float) -> None:
        """Accepts no more and lets the live ones end; what has not by then is left to recovery."""
        self.closing = True
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=grace_s)
        for live in list(self._live.values()):
            live.abandon()
            live.answered.set()
            self.book.changed(live.operation_id)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=2)

    async def _on_disk(self, operation_id: str) -> Operation:
        """The operation, as soon as it is on disk; raises what it was refused with."""
        operation = self.book.get(operation_id)
        live = self._live.get(operation_id)
        if live is not None:
            await live.accepted.wait()
            if live.refusal is not None:
                raise live.refusal
        return operation

    async def _accept(self, live: LiveOperation, recorded: bytes, method: Method) -> None:
        """Belongs to the daemon from its first write on: the caller may go at any time."""
        try:
            await asyncio.wrap_future(self._journal.accept(live.message, recorded))
        except JournalError as error:
            self._leave(live)
            self.book.remove(live.operation_id)
            live.refuse(unwritable(error))
            return
        live.accepted.set()
        self._listener.operation_changed(live.message)
        await self._lanes.turn(live)
        await self._execution.run(live, method)

    async def _take_up(self, live: LiveOperation, method: Method) -> None:
        await self._lanes.turn(live)
        if live.verb.resumes or live.committed:
            await self._execution.run(live, method)
        else:
            error = Interrupted("the daemon was restarted while this ran; it was rolled back")
            await self._execution.fail(live, error)

    async def _broken_off(self, instance_id: str) -> None:
        """What hangs about an instance's machine returns now, or never will."""
        log.warning("an operation hangs and is broken off", instance_id=instance_id)
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._pools.urgent, self._break_off, instance_id)
        except ContractError as error:
            log.warning("it could not be broken off", reason=str(error))

    def require_open(self) -> None:
        """Raises what keeps mutations out now: the start, the stop, a lost hypervisor."""
        if self.closing:
            raise ShuttingDownError("the daemon stops")
        if not self._recovered:
            raise StartingError("the daemon is starting; nothing was begun")
        if not self.reachable.is_set():
            raise UnreachableError("the hypervisor is out of reach; nothing was begun")

    def _refuse_if_full(self) -> None:
        if len(self._live) >= MAX_LIVE_OPERATIONS:
            raise self._queue.turned_away(f"{MAX_LIVE_OPERATIONS} operations are live already")

    def _live_operation(
        self, message: Operation, verb: Verb, request: Message, lane: str
    ) -> LiveOperation:
        return LiveOperation(
            message=message,
            verb=verb,
            request=request,
            lane=lane,
            journal=self._journal,
            loop=asyncio.get_running_loop(),
            changed=self._changed,
            kept_out=partial(self.keeps_out, verb, request),
        )

    def _enter(self, live: LiveOperation, recorded: bytes) -> None:
        self._live[live.operation_id] = live
        asked = None if live.message.recovered else live.request
        self.book.add(live.message, lane=live.lane, recorded=recorded, request=asked)

    def _leave(self, live: LiveOperation) -> None:
        self._live.pop(live.operation_id, None)
        self._lanes.leave(live)

    def _left_over(self, entry: Entry, verb: Verb) -> LiveOperation:
        """An operation that an earlier run of the daemon left; it has its lane again."""
        request = verb.request_class.FromString(entry.request)
        live = self._live_operation(entry.operation, verb, request, verb.lane(request))
        live.steps.extend(entry.steps)
        live.committed = entry.committed
        live.message.recovered = True
        live.accepted.set()
        self._lanes.readmit(live)
        self._enter(live, entry.request)
        return live

    def _changed(self, live: LiveOperation, state_changed: bool) -> None:
        self.book.changed(live.operation_id)
        if state_changed:
            self._listener.operation_changed(live.message)

    def _spawn(self, coroutine: Coroutine[None, None, None]) -> None:
        task = asyncio.ensure_future(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _new_message(verb: Verb, request: Message, caller: str) -> Operation:
    message = Operation(
        operation_id=str(uuid.uuid4()),
        verb=verb.name,
        instance_id=getattr(request, "instance_id", ""),
        request_id=getattr(request, "request_id", ""),
        state=State.OPERATION_STATE_PENDING,
        caller=caller,
    )
    message.created_at.GetCurrentTime()
    return message


def _recorded_lane(entry: Entry, bindings: Mapping[str, tuple[Verb, Method]]) -> str:
    binding = bindings.get(entry.operation.verb)
    if binding is None:
        return ""
    return binding[0].lane(binding[0].request_class.FromString(entry.request))
