"""The operations engine alone, with a journal that waits or fails when a test says so."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

from google.protobuf.message import Message
from virtrpc.v1 import instance_pb2
from virtrpc.v1.operation_pb2 import Operation

from backends.work import Undo, Work
from service.operations.book import OperationBook
from service.operations.execution import Method
from service.operations.journal import Journal, JournalError, Step
from service.operations.runner import Operations
from service.pools import Pools
from service.verbs import Verb, all_verbs

INSTANCE_ID = "11111111-1111-4111-8111-111111111111"
VERBS = {verb.name: verb for verb in all_verbs().values()}
WAIT_S = 10.0


class TestJournal(Journal):
    """Writes of the kinds in `held` wait for `release`; those in `broken` fail."""

    __test__ = False

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.held: set[str] = set()
        self.broken: set[str] = set()
        self._waiting: list[tuple[Callable[[], Future[None]], Future[None]]] = []

    def accept(self, operation: Operation, request: bytes) -> "Future[None]":
        write = super().accept
        return self._ruled("accept", lambda: write(operation, request))

    def step(self, operation_id: str, step: Step) -> "Future[None]":
        write = super().step
        return self._ruled("step", lambda: write(operation_id, step))

    def commit(self, operation_id: str) -> "Future[None]":
        write = super().commit
        return self._ruled("commit", lambda: write(operation_id))

    def undone(self, operation_id: str, number: int) -> "Future[None]":
        write = super().undone
        return self._ruled("undone", lambda: write(operation_id, number))

    def end(self, operation: Operation) -> "Future[None]":
        write = super().end
        return self._ruled("end", lambda: write(operation))

    def release(self) -> None:
        """Lets what was held go to disk."""
        self.held.clear()
        for write, future in self._waiting:
            write().result(WAIT_S)
            future.set_result(None)

    def refuse_held(self) -> None:
        """What was held fails, as on a full filesystem."""
        self.held.clear()
        for _, future in self._waiting:
            future.set_exception(JournalError("the journal cannot be written: full"))

    def _ruled(self, kind: str, write: "Callable[[], Future[None]]") -> "Future[None]":
        future: Future[None] = Future()
        if kind in self.broken:
            future.set_exception(JournalError("the journal cannot be written: full"))
        elif kind in self.held:
            self._waiting.append((write, future))
        else:
            return write()
        return future


class Engine:
    """Operations over a journal in `folder`; make it on the event loop."""

    def __init__(self, folder: Path) -> None:
        self._loop = asyncio.get_running_loop()
        self.journal = TestJournal(folder / "journal.sqlite")
        self.pools = Pools.make()
        self.reachable = asyncio.Event()
        self.reachable.set()
        self.book = OperationBook()
        self.told: list[Operation] = []
        self.undone: list[str] = []
        self.undo_errors: list[Exception] = []
        """Raised by the next undos, one each."""
        self.loses_hypervisor = False
        """Such an error means that the hypervisor is out of reach, until a test says otherwise."""
        self.broken_off: list[str] = []
        self.lets_go = threading.Event()
        """Set when what hangs was broken off."""
        self.operations = Operations(
            journal=self.journal,
            book=self.book,
            pools=self.pools,
            undo=self._undo,
            break_off=self._break_off,
            listener=self,
            reachable=self.reachable,
        )

    def operation_changed(self, operation: Operation) -> None:
        """See service.operations.runner.Listener."""
        copy = Operation()
        copy.CopyFrom(operation)
        self.told.append(copy)

    async def start(self, verb: Verb, method: Method, *, request_id: str = "") -> Operation:
        """Starts a verb on the one instance."""
        request = verb.request_class(instance_id=INSTANCE_ID, request_id=request_id)
        return await self.operations.start(verb, request, method, caller="test")

    async def outcome(self, operation: Operation) -> Operation:
        """The operation when it has ended or cannot go on; never waits for long."""
        async with asyncio.timeout(WAIT_S):
            return await self.operations.outcome(operation)

    async def until_done(self, operation_id: str) -> Operation:
        """The operation when it has ended."""
        operation = self.book.get(operation_id)
        async with asyncio.timeout(WAIT_S):
            async for _ in self.book.watch(operation_id):
                pass
        return operation

    def close(self) -> None:
        """Lets go of threads and files."""
        self.pools.shutdown()
        self.journal.close()

    def _break_off(self, instance_id: str) -> None:
        self.broken_off.append(instance_id)
        self.lets_go.set()

    def _undo(self, undo: Undo) -> None:
        if self.undo_errors:
            error = self.undo_errors.pop(0)
            if self.loses_hypervisor:
                self._loop.call_soon_threadsafe(self.reachable.clear)
            raise error
        self.undone.append(undo.action)


def returns_instance(_request: Message, _work: Work) -> Message:
    """A verb that has its effect at once."""
    return instance_pb2.Instance(instance_id=INSTANCE_ID)


def step_by_step(*names: str, then: Exception | None = None) -> Method:
    """A verb with these steps, each with an undo; then it fails, where it is to."""

    def method(_request: Message, work: Work) -> Message:
        work.ready()
        for name in names:
            work.step(name, Undo(name, {}))
        if then is not None:
            raise then
        return instance_pb2.Instance(instance_id=INSTANCE_ID)

    return method
