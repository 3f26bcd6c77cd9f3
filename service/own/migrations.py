"""MigrationService.WatchMigration: how a migration stands, as the book has it."""

import asyncio
from collections.abc import AsyncIterator, Callable

from virtrpc.v1 import migration_pb2 as pb

from backends.errors import NotFoundError
from backends.migration.book import Migration, MigrationBook
from service.dispatcher import Call
from service.errors import ShuttingDownError

_DEFAULT_INTERVAL_S = 1.0


class MigrationVerbs:
    """The stream; all else of migrations is the backend's."""

    def __init__(self, book: MigrationBook, *, closing: Callable[[], bool]) -> None:
        self._book = book
        self._closing = closing
        self._watchers: dict[str, set[asyncio.Event]] = {}
        self._loop = asyncio.get_running_loop()
        book.changed = self._changed

    async def watch_migration(
        self, request: pb.WatchMigrationRequest, _call: Call
    ) -> AsyncIterator[pb.WatchMigrationResponse]:
        """See MigrationService.WatchMigration."""
        migration = self._find(request)
        interval_s = _DEFAULT_INTERVAL_S
        if request.HasField("interval"):
            interval_s = request.interval.ToNanoseconds() / 1e9
        changed = asyncio.Event()
        watchers = self._watchers.setdefault(migration.migration_id, set())
        watchers.add(changed)
        try:
            while True:
                if self._closing():
                    raise ShuttingDownError("the daemon stops; the migration goes on")
                progress = self._book.progress(migration)
                yield pb.WatchMigrationResponse(progress=progress)
                if progress.done:
                    return
                await self._next(migration, progress.phase, changed, interval_s)
        finally:
            watchers.discard(changed)

    async def _next(
        self,
        migration: Migration,
        phase: "pb.MigrationPhase.ValueType",
        changed: asyncio.Event,
        interval_s: float,
    ) -> None:
        """Returns when the phase is another one, or the interval is over."""
        try:
            async with asyncio.timeout(interval_s):
                while migration.phase == phase and not self._closing():
                    await changed.wait()
                    changed.clear()
        except TimeoutError:
            pass

    def _find(self, request: pb.WatchMigrationRequest) -> Migration:
        """The migration that is meant; raises NotFoundError."""
        instance_id = request.instance_id.lower()
        if request.migration_id:
            found = self._book.find(request.migration_id)
        else:
            found = self._book.last_of(instance_id)
        if found is None or found.instance_id != instance_id:
            raise NotFoundError(
                "no such migration of the instance is known",
                reason="MIGRATION_NOT_FOUND",
                metadata={"instance_id": request.instance_id},
            )
        return found

    def _changed(self, migration_id: str) -> None:
        """Called on any thread."""
        self._loop.call_soon_threadsafe(self._wake, migration_id)

    def _wake(self, migration_id: str) -> None:
        for watcher in self._watchers.get(migration_id, ()):
            watcher.set()
