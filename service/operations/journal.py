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
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

from google.protobuf.message import DecodeError
from virtrpc.v1.operation_pb2 import Operation

from backends.work import Undo
from service.database import DatabaseFileError, open_database
from service.operations.reserve import Reserve

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
# What makes a journal of an older version one of _SCHEMA: whoever changes that adds here the
# statements from the version before, and a file of it to tests/service/journals.
_CHANGES: Sequence[str] = ()
SCHEMA_VERSION = len(_CHANGES) + 1
_Statement = tuple[str, Sequence[object]]


@dataclass(frozen=True)
class _Write:
    """What is written together, and who is told of it."""

    statements: Sequence[_Statement]
    ends: bool
    """It puts something to its end, and has the reserve for that; the rest begins something."""
    future: "Future[None]" = field(default_factory=Future)


class JournalError(Exception):
    """The journal cannot be read or written; the message says what to do."""


class DiskFullError(JournalError):
    """There is no room on the disk."""


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
        self._reserve = Reserve(path.with_suffix(".reserve"))
        self._queue: queue.SimpleQueue[_Write | None] = queue.SimpleQueue()
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
            ends=True,
        )

    def end(self, operation: Operation) -> "Future[None]":
        """The operation has ended; ended ones beyond the retention are forgotten."""
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
        return self._put(_Write(statements, ends=True))

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

    def _submit(
        self, sql: str, parameters: Sequence[object], *, ends: bool = False
    ) -> "Future[None]":
        return self._put(_Write([(sql, parameters)], ends))

    def _put(self, write: _Write) -> "Future[None]":
        self._queue.put(write)
        return write.future

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

    def _write(self, batch: Sequence[_Write]) -> None:
        try:
            if not self._reserve.hold():
                raise DiskFullError("no room is left for the end of what would begin")
            self._transact(batch)
        except Exception as error:  # noqa: BLE001 - a writer that ended would leave all waiting
            ends = [write for write in batch if write.ends]
            if _is_full(error) and ends:
                _fail([write for write in batch if not write.ends], error)
                self._write_on_full_disk(ends)
            else:
                _fail(batch, error)
        else:
            _succeed(batch)

    def _write_on_full_disk(self, ends: Sequence[_Write]) -> None:
        self._reserve.release()
        try:
            self._transact(ends)
        except Exception as error:  # noqa: BLE001 - see _write
            _fail(ends, error)
        else:
            _succeed(ends)

    def _transact(self, batch: Sequence[_Write]) -> None:
        with self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            for write in batch:
                for sql, parameters in write.statements:
                    self._connection.execute(sql, parameters)


def _is_full(error: Exception) -> bool:
    """SQLite's codes: https://www.sqlite.org/rescode.html; extended ones keep the low byte."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return isinstance(error, DiskFullError) or code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)


def _fail(batch: Sequence[_Write], error: Exception) -> None:
    failure = JournalError(f"the journal cannot be written: {error}")
    for write in batch:
        if write.future.set_running_or_notify_cancel():
            write.future.set_exception(failure)


def _succeed(batch: Sequence[_Write]) -> None:
    for write in batch:
        if write.future.set_running_or_notify_cancel():
            write.future.set_result(None)


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
            changes=_CHANGES,
            what="journal",
            loses="operations of the old one are then not recovered",
        )
    except DatabaseFileError as error:
        raise JournalError(str(error)) from error
