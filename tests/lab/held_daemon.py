"""`virtrpcd` that can be held at chosen writes of its journal.

    python -m tests.lab.held_daemon FOLDER [flags of virtrpcd]

An operation whose write "VERB.KIND" or "VERB.step.NAME" has just reached the disk waits
where FOLDER has a gate of that name (tests/lab/gates.py); all else goes on.
"""

import sys
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path

from virtrpc.v1.operation_pb2 import Operation

import service.core
from service.main import main
from service.operations.journal import Entry, Journal, Step
from tests.lab.gates import pass_through


class HeldJournal(Journal):
    """A journal with gates."""

    folder = Path()

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._verbs: dict[str, str] = {}

    def load(self) -> list[Entry]:
        entries = super().load()
        self._verbs |= {e.operation.operation_id: e.operation.verb for e in entries}
        return entries

    def accept(self, operation: Operation, request: bytes) -> "Future[None]":
        self._verbs[operation.operation_id] = operation.verb
        return super().accept(operation, request)

    def step(self, operation_id: str, step: Step) -> "Future[None]":
        written = super().step(operation_id, step)
        return self._held(written, f"{self._verbs[operation_id]}.step.{step.name}")

    def commit(self, operation_id: str) -> "Future[None]":
        return self._held(super().commit(operation_id), f"{self._verbs[operation_id]}.commit")

    def _held(self, written: "Future[None]", name: str) -> "Future[None]":
        gate = self.folder / name
        if not gate.exists():
            return written
        passed: Future[None] = Future()

        def wait() -> None:
            written.result()
            pass_through(gate)
            passed.set_result(None)

        threading.Thread(target=wait, name="gate", daemon=True).start()
        return passed


def run(arguments: Sequence[str]) -> None:
    """Runs the daemon with the flags that follow the folder."""
    HeldJournal.folder, sys.argv[1:] = Path(arguments[0]), arguments[1:]
    setattr(service.core, "Journal", HeldJournal)  # noqa: B010 - not a public name of it
    main()


if __name__ == "__main__":
    run(sys.argv[1:])
