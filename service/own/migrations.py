"""MigrationService.WatchMigration: how a migration stands, as the book has it."""

import asyncio
from collections.abc import AsyncIterator

from virtrpc.v1 import migration_pb2 as pb

from backends.errors import NotFoundError
from backends.migration.book import Migration, MigrationBook
from service.dispatcher import Call
from service.errors import ShuttingDownError
from service.operations.runner import Operations

_DEFAULT_INTERVAL_S = 1.0
_BEGIN = ("LiveMigrateInstance", "MigrateDiskAndPowerOff")


class MigrationVerbs:
    """The stream; all else of migrations is the backend's."""

    def __init__(self, book: MigrationBook, operations: Operations) -> None:
        self._book = book
        self._operations = operations
        self._watchers: dict[str, set[asyncio.Event]] = {}
        self._loop = asyncio.get_running_loop()
        book.changed = self._changed

    async def watch_migration(
        self, request: pb.WatchMigrationRequest, _call: Call
    ) -> AsyncIterator[pb.WatchMigrationResponse]:
        """See MigrationService.WatchMigration."""
        migration = await self._find(request)
        interval_s = _DEFAULT_INTERVAL_S
        if request.HasField("interval"):
            interval_s = request.interval.ToNanoseconds() / 1e9
        changed = asyncio.Event()
        watchers = self._watchers.setdefault(migration.migration_id, set())
        watchers.add(changed)
        try:
            while True:
                if self._operations.closing:
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
                while migration.phase == phase and not self._operations.closing:
                    await changed.wait()
                    changed.clear()
        except TimeoutError:
            pass

    async def _find(self, request: pb.WatchMigrationRequest) -> Migration:
        """The migration that is meant; raises NotFoundError."""
        await self._entered(request)
        found = self._known(request)
        if found is None or found.instance_id != request.instance_id.lower():
            raise NotFoundError(
                "no such migration of the instance is known",
                reason="MIGRATION_NOT_FOUND",
                metadata={"instance_id": request.instance_id},
            )
        return found

    def _known(self, request: pb.WatchMigrationRequest) -> Migration | None:
        if request.migration_id:
            return self._book.find(request.migration_id)
        return self._book.last_of(request.instance_id.lower())

    async def _entered(self, request: pb.WatchMigrationRequest) -> None:
        """Returns when a migration that has only just been accepted is in the book too."""
        live = self._operations.live_of(request.instance_id)
        begins = next((operation for operation in live if operation.verb in _BEGIN), None)
        if begins is None or self._goes_on(request):
            return
        async for _ in self._operations.book.watch(begins.operation_id):
            if self._goes_on(request):
                return

    def _goes_on(self, request: pb.WatchMigrationRequest) -> bool:
        known = self._known(request)
        return known is not None and not known.ended.is_set()

    def _changed(self, migration_id: str) -> None:
        """Called on any thread."""
        self._loop.call_soon_threadsafe(self._wake, migration_id)

    def _wake(self, migration_id: str) -> None:
        for watcher in self._watchers.get(migration_id, ()):
            watcher.set()
