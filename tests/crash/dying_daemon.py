"""`virtrpcd` to which something happens at chosen writes of its journal, or that counts them.

    python -m tests.crash.dying_daemon PLAN [flags of virtrpcd]

PLAN is `count:FILE`, which appends a line "REQUEST_ID KIND" for every write; or
`die:FILE` with one point in each line, "REQUEST_ID NUMBER SIDE": the operation of
that request_id stops right `before` or `after` its write of that number (from 1), and
when all have stopped, the process ends as if killed. So one life serves many verbs. With
`cancel:FILE`, of the same lines, it goes on instead, once a caller has asked to cancel it; with
`lose:FILE` its verb finds that the hypervisor does not answer.
"""

import os
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import grpc
from virtrpc.v1.operation_pb2 import CancelOperationRequest, Operation
from virtrpc.v1.operation_pb2_grpc import OperationServiceStub

import service.core
import service.operations.runner
from backends.errors import UnreachableError
from backends.work import Undo
from service.main import main
from service.operations.journal import Entry, Journal, Step
from service.operations.operation import LiveOperation

DIED = 137
BEFORE, AFTER = "before", "after"
CANCEL_S = 60.0


@dataclass(frozen=True)
class Point:
    """Where an operation stops."""

    request_id: str
    number: int
    side: str


def counting(path: Path) -> str:
    """The PLAN of a daemon that only counts, into an empty file."""
    path.write_text("", encoding="ascii")
    return f"count:{path}"


def dying(path: Path, points: Iterable[Point]) -> str:
    """The PLAN of a daemon that dies when all points were reached."""
    return f"die:{_written(path, points)}"


def cancelling(path: Path, points: Iterable[Point]) -> str:
    """The PLAN of a daemon that is asked to cancel at all points; its socket is beside the file."""
    return f"cancel:{_written(path, points)}"


def losing(path: Path, points: Iterable[Point]) -> str:
    """The PLAN of a daemon that loses its hypervisor at all points, for a moment."""
    return f"lose:{_written(path, points)}"


def _written(path: Path, points: Iterable[Point]) -> Path:
    lines = (f"{point.request_id} {point.number} {point.side}\n" for point in points)
    path.write_text("".join(lines), encoding="ascii")
    return path


def counted(path: Path) -> dict[str, list[str]]:
    """Kinds of the writes of each request_id, in order, as a counting daemon wrote them."""
    kinds: dict[str, list[str]] = {}
    for line in path.read_text(encoding="ascii").splitlines():
        request_id, kind = line.split()
        kinds.setdefault(request_id, []).append(kind)
    return kinds


class MortalJournal(Journal):
    """A journal that follows PLAN."""

    plan = ""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._request_ids: dict[str, str] = {}
        self._writes: Counter[str] = Counter()
        self._lock = threading.Lock()
        what, _, file = self.plan.partition(":")
        self._counts = Path(file) if what == "count" else None
        self._loses = what == "lose"
        self.lost: set[str] = set()
        """Operations that have not been told yet that the hypervisor is lost."""
        self._address = f"unix:{Path(file).parent}/virtrpc.sock" if what == "cancel" else ""
        self._points = set() if self._counts else _read_points(Path(file))
        self._not_reached = len(self._points)

    def load(self) -> list[Entry]:
        entries = super().load()
        for entry in entries:
            self._request_ids[entry.operation.operation_id] = entry.operation.request_id
        return entries

    def accept(self, operation: Operation, request: bytes) -> "Future[None]":
        self._request_ids[operation.operation_id] = operation.request_id
        write = super().accept
        return self._watched("accept", operation.operation_id, lambda: write(operation, request))

    def step(self, operation_id: str, step: Step) -> "Future[None]":
        write = super().step
        return self._watched("step", operation_id, lambda: write(operation_id, step))

    def commit(self, operation_id: str) -> "Future[None]":
        write = super().commit
        return self._watched("commit", operation_id, lambda: write(operation_id))

    def undone(self, operation_id: str, number: int) -> "Future[None]":
        write = super().undone
        return self._watched("undone", operation_id, lambda: write(operation_id, number))

    def end(self, operation: Operation) -> "Future[None]":
        write = super().end
        return self._watched("end", operation.operation_id, lambda: write(operation))

    def _watched(
        self, kind: str, operation_id: str, write: "Callable[[], Future[None]]"
    ) -> "Future[None]":
        request_id = self._request_ids[operation_id]
        with self._lock:
            self._writes[request_id] += 1
            number = self._writes[request_id]
            if self._counts is not None and request_id:
                with self._counts.open("a", encoding="ascii") as file:
                    file.write(f"{request_id} {kind}\n")
        never: Future[None] = Future()
        if Point(request_id, number, BEFORE) in self._points:
            self._reach()
            return never
        if Point(request_id, number, AFTER) in self._points:
            if self._loses:
                self.lost.add(operation_id)
                return write()
            if self._address:
                return self._cancelled(operation_id, write())
            write().add_done_callback(lambda _: self._reach())
            return never
        return write()

    def _cancelled(self, operation_id: str, write: "Future[None]") -> "Future[None]":
        """The verb, on its worker, goes on when its write is on disk and the cancel was heard."""
        write.result()
        with grpc.insecure_channel(self._address) as channel:
            request = CancelOperationRequest(operation_id=operation_id)
            OperationServiceStub(channel).CancelOperation(request, timeout=CANCEL_S)
        return write

    def _reach(self) -> None:
        with self._lock:
            self._not_reached -= 1
            if not self._not_reached:
                os._exit(DIED)


class LosingOperation(LiveOperation):
    """An operation whose verb finds the hypervisor lost after the writes of the plan."""

    def step(self, name: str, undo: Undo | None = None) -> None:
        super().step(name, undo)
        self._lose()

    def commit(self) -> None:
        super().commit()
        self._lose()

    def _lose(self) -> None:
        lost = cast(MortalJournal, self._journal).lost
        if self.operation_id in lost:
            lost.remove(self.operation_id)
            raise UnreachableError("the hypervisor is lost for a moment")


def _read_points(path: Path) -> set[Point]:
    lines = (line.split() for line in path.read_text(encoding="ascii").splitlines())
    return {Point(request_id, int(number), side) for request_id, number, side in lines}


def run(arguments: Sequence[str]) -> None:
    """Runs the daemon with the flags that follow the plan."""
    MortalJournal.plan, sys.argv[1:] = arguments[0], arguments[1:]
    setattr(service.core, "Journal", MortalJournal)  # noqa: B010 - not a public name of it
    setattr(service.operations.runner, "LiveOperation", LosingOperation)  # noqa: B010
    main()


if __name__ == "__main__":
    run(sys.argv[1:])
