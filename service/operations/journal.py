"""The journal: operations and their steps on disk, before anything changes.

SQLite in WAL mode with `synchronous=FULL`: what a call has returned from is
still there after a power cut. One thread writes; what arrives while it syncs
shares the next transaction, so that a burst costs one sync, not one each.

    accept ─▶ step* ─▶ [commit] ─▶ end
                 ╰─▶ undone*
"""

import json
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.message import DecodeError
from virtrpc.v1.operation_pb2 import Operation

from backends.work import Undo
from service.database import DatabaseFileError, open_database

SCHEMA_VERSION = 1
RETAINED_OPERATIONS = 10_000
_BATCH = 256
_SCHEMA = """
CREATE TABLE operations (
    sequence INTEGER PRIMARY KEY,
    operation_id TEXT NOT NULL UNIQUE,
    request BLOB NOT NULL,
    operation BLOB NOT NULL,
    live INTEGER NOT NULL,
    committed INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX operations_live ON operations (live);
CREATE TABLE steps (
    operation_id TEXT NOT NULL,
    number INTEGER NOT NULL,
    name TEXT NOT NULL,
    undo TEXT,
    undone INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (operation_id, number)
) WITHOUT ROWID;
"""
_Statement = tuple[str, Sequence[object]]


class JournalError(Exception):
    """The journal cannot be read or written; the message says what to do."""


@dataclass(frozen=True)
class Step:
    """A journalled step, and how it is undone."""

    number: int
    name: str
    undo: Undo | None


@dataclass(frozen=True)
class Entry:
    """An operation as the journal has it."""

    operation: Operation
    request: bytes
    """The request without its secrets."""
    live: bool
    """It has not ended."""
    committed: bool
    """It is past its point of no return."""
    steps: Sequence[Step]
    """Steps not yet undone, in order."""


class Journal:
    """Opens, or makes, the journal. Every write returns a future that is done when it is on disk.

    Raises JournalError where the file is corrupt or of a newer schema.
    """

    def __init__(self, path: Path) -> None:
        self._connection = _open(path)
        self._queue: queue.SimpleQueue[tuple[list[_Statement], Future[None]] | None] = (
            queue.SimpleQueue()
        )
        self._thread = threading.Thread(target=self._write_all, name="journal", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Writes what is queued and closes the file."""
        self._queue.put(None)
        self._thread.join()
        self._connection.close()

    def accept(self, operation: Operation, request: bytes) -> "Future[None]":
        """A new operation, before anything else is done about it."""
        return self._submit(
            "INSERT INTO operations (operation_id, request, operation, live) VALUES (?, ?, ?, 1)",
            (operation.operation_id, request, operation.SerializeToString()),
        )

    def step(self, operation_id: str, step: Step) -> "Future[None]":
        """A change of the host is about to begin."""
        undo = step.undo and json.dumps([step.undo.action, dict(step.undo.arguments)])
        return self._submit(
            # Numbers of steps that were undone are given again by a later run.
            "INSERT OR REPLACE INTO steps (operation_id, number, name, undo) VALUES (?, ?, ?, ?)",
            (operation_id, step.number, step.name, undo),
        )

    def commit(self, operation_id: str) -> "Future[None]":
        """The operation is past its point of no return."""
        return self._submit(
            "UPDATE operations SET committed = 1 WHERE operation_id = ?", (operation_id,)
        )

    def undone(self, operation_id: str, number: int) -> "Future[None]":
        """A step has been undone."""
        return self._submit(
            "UPDATE steps SET undone = 1 WHERE operation_id = ? AND number = ?",
            (operation_id, number),
        )

    def end(self, operation: Operation) -> "Future[None]":
        """The operation has ended; ended ones beyond the retention are forgotten."""
        future: Future[None] = Future()
        statements: list[_Statement] = [
            (
                "UPDATE operations SET live = 0, operation = ? WHERE operation_id = ?",
                (operation.SerializeToString(), operation.operation_id),
            ),
            ("DELETE FROM steps WHERE operation_id = ?", (operation.operation_id,)),
            (
                "DELETE FROM operations WHERE live = 0 AND sequence <="
                " (SELECT max(sequence) FROM operations) - ?",
                (RETAINED_OPERATIONS,),
            ),
        ]
        self._queue.put((statements, future))
        return future

    def load(self) -> list[Entry]:
        """Everything in it, oldest first. Call before the first write; raises JournalError."""
        try:
            return self._load()
        except (sqlite3.DatabaseError, DecodeError, TypeError, ValueError) as error:
            raise JournalError(f"the journal cannot be read: {error}") from error

    def _load(self) -> list[Entry]:
        steps: dict[str, list[Step]] = {}
        rows = self._connection.execute(
            "SELECT operation_id, number, name, undo FROM steps WHERE undone = 0"
            " ORDER BY operation_id, number"
        )
        for operation_id, number, name, undo in rows:
            steps.setdefault(operation_id, []).append(Step(number, name, _undo(undo)))
        rows = self._connection.execute(
            "SELECT operation_id, operation, request, live, committed FROM operations"
            " ORDER BY sequence"
        )
        return [
            Entry(Operation.FromString(blob), request, bool(live), bool(committed),
                  steps.get(operation_id, []))
            for operation_id, blob, request, live, committed in rows
        ]  # fmt: skip

    def _submit(self, sql: str, parameters: Sequence[object]) -> "Future[None]":
        future: Future[None] = Future()
        self._queue.put(([(sql, parameters)], future))
        return future

    def _write_all(self) -> None:
        while (first := self._queue.get()) is not None:
            batch = [first]
            while len(batch) < _BATCH and not self._queue.empty():
                following = self._queue.get()
                if following is None:
                    self._queue.put(None)
                    break
                batch.append(following)
            self._write(batch)

    def _write(self, batch: "list[tuple[list[_Statement], Future[None]]]") -> None:
        try:
            with self._connection:
                self._connection.execute("BEGIN IMMEDIATE")
                for statements, _ in batch:
                    for sql, parameters in statements:
                        self._connection.execute(sql, parameters)
        except Exception as error:  # noqa: BLE001 - a writer that ended would leave all waiting
            failure = JournalError(f"the journal cannot be written: {error}")
            _settle(batch, lambda future: future.set_exception(failure))
        else:
            _settle(batch, lambda future: future.set_result(None))


def _settle(
    batch: "list[tuple[list[_Statement], Future[None]]]", settle: "Callable[[Future[None]], None]"
) -> None:
    for _, future in batch:
        if future.set_running_or_notify_cancel():
            settle(future)


def _undo(text: str | None) -> Undo | None:
    if text is None:
        return None
    action, arguments = json.loads(text)
    return Undo(action, arguments)


def _open(path: Path) -> sqlite3.Connection:
    try:
        return open_database(
            path,
            schema=_SCHEMA,
            version=SCHEMA_VERSION,
            what="journal",
            loses="operations of the old one are then not recovered",
        )
    except DatabaseFileError as error:
        raise JournalError(str(error)) from error
