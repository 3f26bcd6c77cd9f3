"""What this host knows of migrations, its own and those that come here: a file for each.

    source       CHECKING ─▶ PREPARING ─▶ COPYING_… ─▶ COMPLETING ─▶ SUCCEEDED
                                 ╰──────────┴─▶ ROLLING_BACK ─▶ FAILED | CANCELLED
    destination  PREPARING ─▶ COMPLETING ─▶ SUCCEEDED
                     ╰─▶ CANCELLED

Cold, both sides stand still in between, until the source is told how it is to end:

    source       … COPYING_DISKS ─▶ AWAITING_CONFIRMATION ─▶ SUCCEEDED | CANCELLED: reverted
    destination  PREPARING ⇄ COMPLETING ─▶ AWAITING_CONFIRMATION ─▶ SUCCEEDED

The journal knows what an operation has begun; the book knows what a migration has come
to, also between the calls of a controller that orchestrates by itself.
"""

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from google.protobuf import json_format
from virtrpc.v1.migration_pb2 import (
    MIGRATION_KIND_COLD,
    MIGRATION_PHASE_AWAITING_CONFIRMATION,
    MIGRATION_PHASE_CANCELLED,
    MIGRATION_PHASE_FAILED,
    MIGRATION_PHASE_POST_COPY,
    MIGRATION_PHASE_POST_COPY_BROKEN,
    MIGRATION_PHASE_SUCCEEDED,
    MIGRATION_STORAGE_SHARED,
    LiveMigrationResult,
    MigrateDiskAndPowerOffResponse,
    MigrationData,
    MigrationPhase,
    MigrationProgress,
    RollbackDestinationRequest,
)
from virtrpc.v1.spec_pb2 import InstanceSpec
from virtrpc.v1.types_pb2 import Error

SOURCE, DESTINATION = "source", "destination"
_ENDED = (MIGRATION_PHASE_SUCCEEDED, MIGRATION_PHASE_FAILED, MIGRATION_PHASE_CANCELLED)
_RETAINED = 256
Phase = MigrationPhase


@dataclass(eq=False)
class Migration:
    """One migration as one of its hosts knows it. Changed by MigrationBook.change alone."""

    role: str
    data: MigrationData
    progress: MigrationProgress = field(default_factory=MigrationProgress)
    result: LiveMigrationResult | None = None
    """What it has come to, at the source, when it has switched."""
    abort: str = ""
    """Why its transfer is to be stopped: "request" or "timeout"; empty: it is not."""
    forced: bool = False
    post_copy_allowed: bool = False
    cold_result: MigrateDiskAndPowerOffResponse = field(
        default_factory=MigrateDiskAndPowerOffResponse
    )
    """What a cold one has come to, at the source; it has `data` when it was released."""
    spec: InstanceSpec = field(default_factory=InstanceSpec)
    """What the destination was told that the instance is; without secrets."""
    owed: RollbackDestinationRequest | None = None
    """What the destination is still to be asked, of a migration that has come to nothing."""
    finished: bool = False
    """FinishMigration has made the instance here."""
    began_ns: int = field(default_factory=time.monotonic_ns)
    ended: threading.Event = field(default_factory=threading.Event)
    """Nothing more will be done for it here."""

    @property
    def migration_id(self) -> str:
        """Its id, a UUID."""
        return self.data.migration_id

    @property
    def instance_id(self) -> str:
        """The instance, a UUID."""
        return self.data.instance_id

    @property
    def phase(self) -> "MigrationPhase.ValueType":
        """What is done now."""
        return self.progress.phase

    @property
    def cold(self) -> bool:
        """The guest is off meanwhile."""
        return self.data.kind == MIGRATION_KIND_COLD

    @property
    def pending(self) -> bool:
        """It is neither confirmed nor reverted."""
        return self.phase == MIGRATION_PHASE_AWAITING_CONFIRMATION

    @property
    def in_place(self) -> bool:
        """The instance stays on this host."""
        return self.role == SOURCE and not self.data.destination_uri

    @property
    def post_copy(self) -> bool:
        """The guest is the destination's and fetches memory from the source, or would."""
        return self.phase in (MIGRATION_PHASE_POST_COPY, MIGRATION_PHASE_POST_COPY_BROKEN)


class MigrationBook:
    """All of them, the ended ones as long as there is room. Callable from any thread."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.RLock()
        self._migrations: dict[str, Migration] = {}
        self.changed: Callable[[str], None] = lambda _migration_id: None
        """Called after every change, with the migration's id; must not block."""

    def load(self) -> None:
        """Knows again what earlier runs of the daemon have written."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        paths = sorted(self.folder.glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
        for path in paths:
            migration = _read(json.loads(path.read_text(encoding="utf-8")))
            self._migrations[migration.migration_id] = migration

    def find(self, migration_id: str) -> Migration | None:
        """The migration of an id."""
        with self._lock:
            return self._migrations.get(migration_id.lower())

    def last_of(self, instance_id: str) -> Migration | None:
        """An instance's present migration, or its last."""
        with self._lock:
            of_it = [m for m in self._migrations.values() if m.instance_id == instance_id.lower()]
        return of_it[-1] if of_it else None

    def open_of(self, instance_id: str, role: str) -> Migration | None:
        """The migration of an instance that has not ended here."""
        last = self.last_of(instance_id)
        if last is None or last.role != role or last.ended.is_set():
            return None
        return last

    def pending_of(self, instance_id: str) -> Migration | None:
        """The migration of an instance that waits for confirmation."""
        with self._lock:
            waiting = [m for m in self._migrations.values() if m.pending]
        return next((m for m in waiting if m.instance_id == instance_id.lower()), None)

    def owing(self) -> list[Migration]:
        """Those whose destinations do not know yet that they have come to nothing."""
        with self._lock:
            return [m for m in self._migrations.values() if m.owed is not None]

    def owe(self, migration: Migration, request: RollbackDestinationRequest | None) -> None:
        """Keeps what its destination is still to be asked; None: nothing any more."""
        with self.change(migration):
            migration.owed = request

    def is_shared(self, instance_id: str) -> bool:
        """Whether an instance's files are those that its destination uses."""
        kept = self.pending_of(instance_id)
        shared = kept is not None and kept.data.storage == MIGRATION_STORAGE_SHARED
        return kept is not None and kept.role == SOURCE and shared and not kept.in_place

    def destroyed(self, instance_id: str) -> None:
        """An instance is no more: it is expected here no longer, nor kept."""
        expected = self.open_of(instance_id, DESTINATION)
        if expected is not None:
            self.end(expected, MIGRATION_PHASE_CANCELLED)
        kept = self.pending_of(instance_id)
        if kept is not None:
            self.end(kept, MIGRATION_PHASE_SUCCEEDED)

    def begin(
        self,
        migration: Migration,
        phase: "MigrationPhase.ValueType",
        *,
        durable: bool = True,
    ) -> Migration:
        """Enters a migration; it is on disk when this returns, unless nothing is begun yet."""
        progress = migration.progress
        progress.migration_id = migration.migration_id
        progress.instance_id = migration.instance_id
        progress.kind = migration.data.kind
        with self._lock:
            self._migrations.pop(migration.migration_id, None)
            self._migrations[migration.migration_id] = migration
            self._forget_oldest()
        with self.change(migration, durable=durable) as progress:
            progress.phase = phase
        return migration

    def enter(
        self, migration: Migration, phase: "MigrationPhase.ValueType", *, durable: bool = True
    ) -> None:
        """Its phase changes; that is on disk when this returns, where it has to be."""
        with self.change(migration, durable=durable) as progress:
            progress.phase = phase

    def await_confirmation(self, migration: Migration) -> None:
        """Nothing more is done for it until it is confirmed or reverted."""
        with self.change(migration) as progress:
            progress.phase, progress.done = MIGRATION_PHASE_AWAITING_CONFIRMATION, True
            progress.ClearField("operation_id")

    def end(
        self,
        migration: Migration,
        phase: "MigrationPhase.ValueType",
        error: Error | None = None,
        *,
        durable: bool = True,
    ) -> None:
        """It has ended."""
        with self.change(migration, durable=durable) as progress:
            progress.phase, progress.done = phase, True
            progress.ClearField("operation_id")
            if error is not None:
                progress.error.CopyFrom(error)
        migration.ended.set()

    @contextmanager
    def change(self, migration: Migration, *, durable: bool = True) -> Iterator[MigrationProgress]:
        """Changes a migration; on disk at the end unless only counters move."""
        with self._lock:
            yield migration.progress
            migration.progress.elapsed.FromNanoseconds(time.monotonic_ns() - migration.began_ns)
            if durable:
                self._write(migration)
        self.changed(migration.migration_id)

    def progress(self, migration: Migration) -> MigrationProgress:
        """A copy of how it stands."""
        copy = MigrationProgress()
        with self._lock:
            copy.CopyFrom(migration.progress)
        return copy

    def _write(self, migration: Migration) -> None:
        path = self.folder / f"{migration.migration_id}.json"
        fresh = path.with_suffix(".new")
        with fresh.open("w", encoding="utf-8") as file:
            json.dump(_written(migration), file)
            file.flush()
            os.fsync(file.fileno())
        fresh.rename(path)

    def _forget_oldest(self) -> None:
        known = self._migrations.items()
        ended = [key for key, m in known if m.ended.is_set() and m.owed is None]
        for key in ended[: max(len(ended) - _RETAINED, 0)]:
            del self._migrations[key]
            (self.folder / f"{key}.json").unlink(missing_ok=True)


def _written(migration: Migration) -> dict[str, Any]:
    result, owed = migration.result, migration.owed
    return {
        "role": migration.role,
        "data": json_format.MessageToDict(migration.data),
        "progress": json_format.MessageToDict(migration.progress),
        "result": None if result is None else json_format.MessageToDict(result),
        "forced": migration.forced,
        "cold_result": json_format.MessageToDict(migration.cold_result),
        "spec": json_format.MessageToDict(migration.spec),
        "finished": migration.finished,
        "owed": None if owed is None else json_format.MessageToDict(owed),
    }


def _read(document: dict[str, Any]) -> Migration:
    """What a newer daemon has added is passed over."""
    data = json_format.ParseDict(document["data"], MigrationData(), ignore_unknown_fields=True)
    migration = Migration(document["role"], data, forced=bool(document.get("forced")))
    json_format.ParseDict(document["progress"], migration.progress, ignore_unknown_fields=True)
    migration.began_ns -= migration.progress.elapsed.ToNanoseconds()
    if document.get("result"):
        migration.result = json_format.ParseDict(
            document["result"], LiveMigrationResult(), ignore_unknown_fields=True
        )
    if document.get("owed"):
        migration.owed = json_format.ParseDict(
            document["owed"], RollbackDestinationRequest(), ignore_unknown_fields=True
        )
    for name in ("cold_result", "spec"):
        told = document.get(name) or {}
        json_format.ParseDict(told, getattr(migration, name), ignore_unknown_fields=True)
    migration.finished = bool(document.get("finished"))
    if migration.phase in _ENDED:
        migration.ended.set()
    return migration
