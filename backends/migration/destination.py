"""The destination's part of a migration: would it fit, making ready, taking over or forgetting."""

import structlog
from virtrpc.v1 import migration_pb2 as pb
from virtrpc.v1.event_pb2 import EventType
from virtrpc.v1.instance_pb2 import Instance

from backends.contract import MigrationDestination
from backends.errors import (
    AlreadyExistsError,
    ContractError,
    InstanceNotFoundError,
    UnreachableError,
    WrongStateError,
)
from backends.migration import checks, console
from backends.migration.book import DESTINATION, Migration, MigrationBook, Phase
from backends.migration.driver import MigrationDriver
from backends.migration.state_files import way_of
from backends.migration.storage import StorageMark
from backends.redaction import redacted
from backends.work import Undo, Work

_TAKEN_OVER = (Phase.MIGRATION_PHASE_COMPLETING, Phase.MIGRATION_PHASE_SUCCEEDED)
log = structlog.get_logger()


class Destination(MigrationDestination):
    """The verbs that are asked of the host to which an instance goes."""

    def __init__(self, driver: MigrationDriver, book: MigrationBook, mark: StorageMark) -> None:
        self._driver = driver
        self._book = book
        self._mark = mark
        self.undo = {"take_back_preparation": self._unprepare}

    def check_destination(self, request: pb.CheckDestinationRequest) -> pb.CheckDestinationResponse:
        """See MigrationDestination."""
        source, check = request.source, self._driver.describe()
        check.storage_mark = self._mark.name
        check.storage = request.options.storage
        bases = {disk.base_image_id for disk in source.disks if disk.base_image_id}
        check.base_image_ids.extend(sorted(i for i in bases if self._driver.images.exists(i)))
        blockers = [
            *self._presence(request.instance_id, request.migration_id, source.host_name),
            *checks.hypervisor_blockers(source, check),
            *checks.memory_blockers(source, check),
            *self._driver.taken(source, request.instance_id),
            *self._missing_images(source),
            *self._driver.connections.source_errors(
                source, request.instance_id, live=request.kind != pb.MIGRATION_KIND_COLD
            ),
        ]
        return pb.CheckDestinationResponse(blockers=checks.as_messages(blockers), check=check)

    def cleanup_destination_check(
        self, request: pb.CleanupDestinationCheckRequest, work: Work
    ) -> pb.CleanupDestinationCheckResponse:
        """See MigrationDestination: a check here writes nothing."""
        work = self._driver.work(work, "cleanup_destination_check", request.instance_id)
        work.ready()
        work.step("clean")
        return pb.CleanupDestinationCheckResponse(already_clean=True)

    def prepare_destination(
        self, request: pb.PrepareDestinationRequest, work: Work
    ) -> pb.PrepareDestinationResponse:
        """See MigrationDestination."""
        work = self._driver.work(work, "prepare_destination", request.instance_id)
        known = self._known(request.instance_id, request.migration_id)
        rolled_back = known is not None and known.phase == Phase.MIGRATION_PHASE_CANCELLED
        if known is not None and known.data.prepared and not rolled_back:
            work.ready()
            return pb.PrepareDestinationResponse(data=known.data)
        data = pb.MigrationData()
        data.CopyFrom(request.data)
        _complete_cold(data)
        host_name = request.data.source.host_name
        blockers = self._presence(request.instance_id, request.migration_id, host_name)
        if blockers:
            raise AlreadyExistsError(str(blockers[0]), reason="INSTANCE_EXISTS")
        connections, groups = self._driver.connections, request.security_groups
        with connections.claimed(data, request.spec, groups) as unconnected:
            own = self._driver.blockers(request.instance_id, data, request.spec)
            work.ready([*own, *unconnected, *checks.port_blockers(request.migration_uri)])
            undo = Undo("take_back_preparation", {"migration_id": request.migration_id})
            work.step("prepare", undo)
            self._forget_given_up(request)
            connections.announce(data, groups)
            migration = Migration(DESTINATION, data, spec=redacted(request.spec))
            self._book.begin(migration, Phase.MIGRATION_PHASE_PREPARING)
            connections.connect(data, request.spec, groups)
            self._driver.prepare(data, request.spec)
        with self._book.change(migration):
            data.prepared = True
        return pb.PrepareDestinationResponse(data=data)

    def rollback_destination(
        self, request: pb.RollbackDestinationRequest, work: Work
    ) -> pb.RollbackDestinationResponse:
        """See MigrationDestination."""
        work = self._driver.work(work, "rollback_destination", request.instance_id)
        migration = self._known(request.instance_id, request.migration_id)
        if migration is None or migration.phase == Phase.MIGRATION_PHASE_CANCELLED:
            ids = {"instance_id": request.instance_id, "migration_id": request.migration_id}
            unknown = migration or _unknown(**ids)
            work.ready(self._switched(unknown, source_has_guest=request.source_has_guest))
            return pb.RollbackDestinationResponse(already_gone=True)
        work.ready(self._switched(migration, source_has_guest=request.source_has_guest))
        work.step("unprepare")
        self._take_back(migration, keep_disks=request.keep_disks)
        return pb.RollbackDestinationResponse()

    def complete_destination(
        self, request: pb.CompleteDestinationRequest, work: Work
    ) -> pb.CompleteDestinationResponse:
        """See MigrationDestination."""
        work = self._driver.work(work, "complete_destination", request.instance_id)
        migration = self._known(request.instance_id, request.migration_id)
        if migration is None and self._driver.find(request.instance_id) is None:
            raise InstanceNotFoundError(request.instance_id)
        alive = request.start_only and request.validate_only
        if migration is None or not self._has_arrived(migration, alive=alive):
            raise WrongStateError("the guest is not here", reason="NOT_SWITCHED")
        work.ready()
        # One that was destroyed here before it came is taken all the same: its source has no other.
        if migration.phase != Phase.MIGRATION_PHASE_SUCCEEDED:
            if not request.start_only:
                work.step("adopt")
            self._take_over(migration, request)
        if request.start_only:
            return pb.CompleteDestinationResponse()
        return pb.CompleteDestinationResponse(instance=self._adopt(migration, request))

    def _take_over(self, migration: Migration, request: pb.CompleteDestinationRequest) -> None:
        """From now on it is this host's, and nothing is rolled back.

        The guest stands still until it is started: what is written is written after. One that
        was started by a daemon that died then is taken over again, as its operation is resumed.
        """
        taken_over = migration.phase == Phase.MIGRATION_PHASE_COMPLETING
        self._book.enter(migration, Phase.MIGRATION_PHASE_COMPLETING, durable=False)
        if not (request.data.paused or migration.cold):
            self._start(migration)
        if not taken_over:
            self._book.enter(migration, Phase.MIGRATION_PHASE_COMPLETING)

    def _start(self, migration: Migration) -> None:
        try:
            self._driver.start(migration.instance_id)
        except UnreachableError:
            raise
        except ContractError:
            # Its source has none any more: it is taken as it stands, and can be tried again.
            log.exception("the guest cannot go on", instance_id=migration.instance_id)

    def _adopt(self, migration: Migration, request: pb.CompleteDestinationRequest) -> Instance:
        self._take_console(migration, request)
        if migration.phase == Phase.MIGRATION_PHASE_SUCCEEDED:
            return self._driver.adopt(migration)
        instance = self._driver.adopt(migration)
        self._driver.connections.arrived(migration.instance_id)
        self._driver.tell(
            migration.instance_id,
            EventType.EVENT_TYPE_MIGRATION_COMPLETED,
            migration.data.source.host_name,
        )
        self._book.end(migration, Phase.MIGRATION_PHASE_SUCCEEDED)
        return instance

    def _unprepare(self, migration_id: str) -> None:
        """Undoes a preparation that was interrupted or has failed; the undo action."""
        migration = self._book.find(migration_id)
        done = migration is None or migration.ended.is_set() or _is_taken_over(migration)
        if migration is not None and not done:
            self._take_back(migration)

    def _take_back(self, migration: Migration, *, keep_disks: bool = False) -> None:
        if not keep_disks:
            self._driver.unprepare(migration)
        if self._driver.find(migration.instance_id) is None:
            self._driver.connections.take_back(migration.data)
        self._book.end(migration, Phase.MIGRATION_PHASE_CANCELLED)

    def _has_arrived(self, migration: Migration, *, alive: bool = False) -> bool:
        """Cold, it has not before FinishMigration has ended well."""
        made = migration.finished or not migration.cold
        return made and self._driver.has_arrived(migration, alive=alive)

    def _take_console(self, migration: Migration, request: pb.CompleteDestinationRequest) -> None:
        """Takes what came along of the console log; a repeat writes the same once more.

        A call that the journal has resumed comes without the bytes, which are a secret: its
        source calls again, and has them.
        """
        pieces = request.console_log
        if pieces and not any(piece.data for piece in pieces):
            return
        log = self._driver.console(migration.instance_id)
        if log is not None and migration.data.storage == checks.COPY:
            begins = console.begin(migration.data.console_offset)
            console.take(log, pieces, begins=begins)

    def _known(self, instance_id: str, migration_id: str) -> Migration | None:
        """The migration of an id, as this host's part of it."""
        migration = self._book.find(migration_id)
        if migration is None or migration.role != DESTINATION:
            return None
        if migration.instance_id != instance_id.lower():
            raise AlreadyExistsError(
                f"migration {migration_id} is of another instance", reason="MIGRATION_EXISTS"
            )
        return migration

    def _forget_given_up(self, request: pb.PrepareDestinationRequest) -> None:
        """A source that comes anew has given up what it could not take back."""
        other = self._book.open_of(request.instance_id, DESTINATION)
        if other is not None and other.migration_id != request.migration_id.lower():
            self._unprepare(other.migration_id)

    def _presence(self, instance_id: str, migration_id: str, host_name: str) -> list[ContractError]:
        """That the instance is not here yet, nor about to come by another migration.

        One that its source, which has one at a time, has given up does not count.
        """
        other = self._book.open_of(instance_id, DESTINATION)
        if other is not None and other.migration_id != migration_id.lower():
            given_up = host_name and host_name == other.data.source.host_name
            free = given_up and not _is_taken_over(other)
        else:
            free = self._driver.find(instance_id) is None
        return [] if free else [checks.instance_exists(instance_id)]

    def _switched(self, migration: Migration, *, source_has_guest: bool) -> list[ContractError]:
        waits = source_has_guest and not _is_taken_over(migration)
        if waits or not self._driver.has_arrived(migration):
            return []
        why = "the guest is here now: there is nothing to roll back"
        return [WrongStateError(why, reason="SWITCHED")]

    def _missing_images(self, source: pb.MigrationSource) -> list[ContractError]:
        return [
            WrongStateError(
                f"the store has no image {image_id}, from which the guest was booted",
                reason="IMAGE_NOT_FOUND",
                field="source.boot_image_ids",
            )
            for image_id in source.boot_image_ids
            if not self._driver.images.exists(image_id)
        ]


def _is_taken_over(migration: Migration) -> bool:
    """Its source has said the word, or it was the last one's to say."""
    return migration.phase in _TAKEN_OVER or migration.finished


def _unknown(*, instance_id: str, migration_id: str) -> Migration:
    """A migration that the book does not know: of what came by it the hypervisor does."""
    return Migration(
        DESTINATION, pb.MigrationData(instance_id=instance_id, migration_id=migration_id.lower())
    )


def _complete_cold(data: pb.MigrationData) -> None:
    """Fills in what a check would have said: without one, disks are copied."""
    if data.kind != pb.MIGRATION_KIND_COLD or data.disks:
        return
    data.storage = data.storage or checks.COPY
    data.disks.extend(data.source.disks)
    for disk in data.disks:
        disk.storage = way_of(disk, data.storage)
