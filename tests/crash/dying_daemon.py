"""`virtrpcd` that dies at a chosen write of its journal, or counts its writes.

    python dying_daemon.py PLAN [flags of virtrpcd]

PLAN is `count:FILE`, which appends a line "VERB INSTANCE KIND" for every write, or
`die:VERB:INSTANCE:NUMBER:SIDE`: the process ends, as if killed, right `before` or
`after` the write of that number (from 1) for that verb and instance.
"""

import os
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

from virtrpc.v1.operation_pb2 import Operation

import service.daemon
from service.main import main
from service.operations.journal import Entry, Journal, Step

DIED = 137
BEFORE, AFTER = "before", "after"


@dataclass(frozen=True)
class Point:
    """Where to die."""

    verb: str
    instance_id: str
    number: int
    side: str

    def __str__(self) -> str:
        return f"die:{self.verb}:{self.instance_id}:{self.number}:{self.side}"

    @classmethod
    def parse(cls, text: str) -> "Point":
        """The point that a PLAN names."""
        _, verb, instance_id, number, side = text.split(":")
        return cls(verb, instance_id, int(number), side)


def counting(path: Path) -> str:
    """The PLAN of a daemon that only counts."""
    return f"count:{path}"


class MortalJournal(Journal):
    """A journal that follows PLAN."""

    plan = ""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._point = Point.parse(self.plan) if self.plan.startswith("die:") else None
        self._operations: dict[str, Operation] = {}
        self._writes = 0
        self._counting = threading.Lock()

    def load(self) -> list[Entry]:
        entries = super().load()
        self._operations = {entry.operation.operation_id: entry.operation for entry in entries}
        return entries

    def accept(self, operation: Operation, request: bytes) -> "Future[None]":
        self._operations[operation.operation_id] = operation
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
        operation = self._operations[operation_id]
        if self._point is None:
            line = f"{operation.verb} {operation.instance_id} {kind}\n"
            with Path(self.plan.removeprefix("count:")).open("a", encoding="ascii") as file:
                file.write(line)
            return write()
        if (operation.verb, operation.instance_id) != (self._point.verb, self._point.instance_id):
            return write()
        with self._counting:
            self._writes += 1
            dies = self._writes == self._point.number
        if dies and self._point.side == BEFORE:
            os._exit(DIED)
        future = write()
        if dies:
            future.result()
            os._exit(DIED)
        return future


def run(arguments: Sequence[str]) -> None:
    """Runs the daemon with the flags that follow the plan."""
    MortalJournal.plan, sys.argv[1:] = arguments[0], arguments[1:]
    setattr(service.daemon, "Journal", MortalJournal)  # noqa: B010 - not a public name of it
    main()


if __name__ == "__main__":
    run(sys.argv[1:])
