"""Where the consoles of instances went that were here: their guests migrated."""

from virtrpc.v1 import console_pb2 as pb
from virtrpc.v1.migration_pb2 import MigrationPhase as Phase

from backends.migration.book import SOURCE, MigrationBook

# An instance that has gone in one of these has gone to the destination: before them it is
# untouched, and whoever destroys it ends its migration first.
_AWAY = (
    Phase.MIGRATION_PHASE_COPYING_DISKS,
    Phase.MIGRATION_PHASE_COPYING_MEMORY,
    Phase.MIGRATION_PHASE_POST_COPY,
    Phase.MIGRATION_PHASE_POST_COPY_BROKEN,
    Phase.MIGRATION_PHASE_SWITCHING,
    Phase.MIGRATION_PHASE_COMPLETING,
    Phase.MIGRATION_PHASE_SUCCEEDED,
)


class Moves:
    """Asks the book of migrations. Callable from any thread."""

    def __init__(self, book: MigrationBook) -> None:
        self._book = book

    def of(self, instance_id: str, *, offset: int = 0) -> pb.ConsoleMoved | None:
        """Where an instance is that is no longer here; None: nowhere.

        `offset` is up to where its log was read here.
        """
        last = self._book.last_of(instance_id)
        if last is None or last.role != SOURCE or last.phase not in _AWAY:
            return None
        return pb.ConsoleMoved(
            host_uri=last.data.destination_uri, migration_id=last.migration_id, offset=offset
        )
