"""What the service itself knows of its host, and must not forget: admission and aggregates.

    SetHostEnabled ────────▶ enabled, reason ─────────╮
                                                      ├─▶ accepts new instances
    SetMaintenanceMode ────▶ maintenance, reason ─────╯
    AddToAggregate, … ─────▶ members, and the last removals

In memory for reads, in SQLite for restarts; a change is on disk before it is seen.
"""

import json
import sqlite3
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from google.protobuf.message import DecodeError
from virtrpc.v1.host_pb2 import Aggregate

from backends.errors import NoRoomError, NotFoundError
from service.database import DatabaseFileError, open_database

MOST_AGGREGATES = 1024
MOST_REMOVALS = 1024
_SCHEMA = """
CREATE TABLE acceptance (one INTEGER PRIMARY KEY CHECK (one = 1), value TEXT NOT NULL);
CREATE TABLE members (aggregate_id TEXT PRIMARY KEY, aggregate BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE removals (
    number INTEGER PRIMARY KEY,
    aggregate_id TEXT NOT NULL UNIQUE,
    aggregate BLOB NOT NULL
);
"""
_INSERT_ACCEPTANCE = "INSERT OR REPLACE INTO acceptance VALUES (1, ?)"
_INSERT_MEMBER = "INSERT OR REPLACE INTO members VALUES (?, ?)"
_DELETE_MEMBER = "DELETE FROM members WHERE aggregate_id = ?"
# A removal that is replaced becomes the newest.
_INSERT_REMOVAL = "INSERT OR REPLACE INTO removals (aggregate_id, aggregate) VALUES (?, ?)"
_DELETE_REMOVAL = "DELETE FROM removals WHERE aggregate_id = ?"


@dataclass(frozen=True, kw_only=True)
class Acceptance:
    """Whether the host takes new instances in, and why not."""

    enabled: bool = True
    disabled_reason: str = ""
    maintenance: bool = False
    maintenance_reason: str = ""

    @property
    def accepts(self) -> bool:
        """It does."""
        return self.enabled and not self.maintenance

    @property
    def reason(self) -> str:
        """Why it does not; empty while it does, or where nobody said."""
        if self.maintenance:
            return self.maintenance_reason
        return "" if self.enabled else self.disabled_reason

    def to_json(self) -> str:
        """As kept on disk, and in an undo."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Acceptance":
        """Raises ValueError or TypeError for what is none."""
        return cls(**json.loads(text))


class HostState:
    """Callable from any thread. Raises DatabaseFileError where the file is not sound.

    Changes raise NoRoomError where they cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._connection = open_database(
            path,
            schema=_SCHEMA,
            what="state of the host",
            loses="the host is enabled then, and in no aggregate",
        )
        try:
            self._load()
        except (sqlite3.DatabaseError, DecodeError, ValueError, TypeError) as error:
            raise DatabaseFileError(f"{path} cannot be read: {error}") from error

    @property
    def acceptance(self) -> Acceptance:
        """Whether new instances are taken in, now."""
        return self._acceptance

    def accept(self, acceptance: Acceptance) -> None:
        """From now on it is so."""
        with self._lock:
            self._write((_INSERT_ACCEPTANCE, (acceptance.to_json(),)))
            self._acceptance = acceptance

    def aggregates(self) -> Sequence[Aggregate]:
        """Aggregates that the host is a member of, ordered by id; not to be changed."""
        with self._lock:
            return [self._members[aggregate_id] for aggregate_id in sorted(self._members)]

    def is_full(self, aggregate_id: str) -> bool:
        """The host is a member of as many other aggregates as it may be."""
        return len(self._members) >= MOST_AGGREGATES and aggregate_id not in self._members

    def can_put_back(self, aggregate_id: str) -> bool:
        """The host is a member, or was one that is remembered."""
        return aggregate_id in self._members or aggregate_id in self._removals

    def add(self, aggregate: Aggregate) -> None:
        """The host is a member from now on, or since it was; raises NoRoomError."""
        with self._lock:
            self._add(aggregate)

    def remove(self, aggregate_id: str) -> None:
        """The host is no member; what it was is kept for `put_back`."""
        with self._lock:
            known = self._members.get(aggregate_id)
            if known is None:
                return
            others = [other for other in self._removals if other != aggregate_id]
            forgotten = others[: max(0, len(others) + 1 - MOST_REMOVALS)]
            self._write(
                (_DELETE_MEMBER, (aggregate_id,)),
                (_INSERT_REMOVAL, _row(known)),
                *((_DELETE_REMOVAL, (other,)) for other in forgotten),
            )
            del self._members[aggregate_id]
            for gone in (aggregate_id, *forgotten):
                self._removals.pop(gone, None)
            self._removals[aggregate_id] = known

    def take_back(self, aggregate_id: str) -> None:
        """The host is no member, as if it had not been added."""
        with self._lock:
            if aggregate_id in self._members:
                self._write((_DELETE_MEMBER, (aggregate_id,)))
                del self._members[aggregate_id]

    def put_back(self, aggregate_id: str) -> None:
        """The host is a member again, as it was; raises NotFoundError."""
        with self._lock:
            if aggregate_id in self._members:
                return
            if aggregate_id not in self._removals:
                raise no_removal(aggregate_id)
            self._add(self._removals[aggregate_id])

    def close(self) -> None:
        """Closes the file."""
        with self._lock:
            self._connection.close()

    def _load(self) -> None:
        row = self._connection.execute("SELECT value FROM acceptance").fetchone()
        self._acceptance = Acceptance.from_json(row[0]) if row else Acceptance()
        self._members = self._read("SELECT aggregate_id, aggregate FROM members")
        self._removals = self._read("SELECT aggregate_id, aggregate FROM removals ORDER BY number")

    def _read(self, sql: str) -> dict[str, Aggregate]:
        return {id_: Aggregate.FromString(blob) for id_, blob in self._connection.execute(sql)}

    def _add(self, aggregate: Aggregate) -> None:
        aggregate_id = aggregate.aggregate_id
        if self.is_full(aggregate_id):
            raise too_many_aggregates()
        known = self._members.get(aggregate_id)
        if known is not None:
            aggregate.added_at.CopyFrom(known.added_at)
        self._write((_INSERT_MEMBER, _row(aggregate)))
        self._members[aggregate_id] = aggregate

    def _write(self, *statements: tuple[str, Sequence[object]]) -> None:
        """All or nothing; on disk when it returns."""
        try:
            with self._connection:
                self._connection.execute("BEGIN IMMEDIATE")
                for sql, values in statements:
                    self._connection.execute(sql, values)
        except sqlite3.Error as error:
            raise NoRoomError(
                f"the state of the host cannot be written: {error}", reason="STATE_UNWRITABLE"
            ) from error


def _row(aggregate: Aggregate) -> tuple[str, bytes]:
    return aggregate.aggregate_id, aggregate.SerializeToString()


def too_many_aggregates() -> NoRoomError:
    """The host may be a member of no more."""
    return NoRoomError(
        f"the host is a member of {MOST_AGGREGATES} aggregates",
        reason="TOO_MANY_AGGREGATES",
        metadata={"limit": str(MOST_AGGREGATES)},
    )


def no_removal(aggregate_id: str) -> NotFoundError:
    """There is nothing to undo."""
    return NotFoundError(
        f"no removal from aggregate {aggregate_id} is known, or no longer",
        reason="AGGREGATE_NOT_FOUND",
        metadata={"aggregate_id": aggregate_id},
    )
