"""The verbs of cold migration and resize, alike on every backend; their ends are in cold_endings.

    source       MigrateDiskAndPowerOff ─▶ pending ─▶ Confirm: the copy goes
                                              ╰─────▶ Revert: the copy comes back
    destination  (prepared, disks arrive)  FinishMigration: the instance

On one host both are the same migration of the book. An instance may run at the destination
from the moment at which the source has answered, and at the source again only when the
destination has given it up for good: a rollback there that is on disk before the start here.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from virtrpc.v1 import migration_pb2 as pb
from virtrpc.v1.instance_pb2 import Instance
from virtrpc.v1.spec_pb2 import InstanceSpec

from backends.contract import ColdMigration, Peer, Peers
from backends.errors import (
    AlreadyExistsError,
    ContractError,
    InvalidArgumentError,
    WrongStateError,
)
from backends.migration import resize
from backends.migration.book import SOURCE, Migration, MigrationBook, Phase
from backends.migration.cold_checks import ColdChecks
from backends.migration.cold_driver import Arrival, ColdDriver
from backends.migration.cold_endings import ColdEndings
from backends.migration.cold_source import ON, ColdRun
from backends.migration.driver import MigrationDriver
from backends.migration.endings import end_rolled_back
from backends.migration.receiving import missing, not_prepared
from backends.migration.rollbacks import Rollbacks
from backends.migration.source_checks import SourceChecks, chosen_id, is_same_host
from backends.migration.storage import StorageMark
from backends.plan import InstancePlan
from backends.power_states import wanted_blockers
from backends.specification import require_managed
from backends.work import Undo, Work


class ColdMigrations(ColdMigration):
    """See ColdMigration."""

    def __init__(
        self,
        driver: MigrationDriver,
        cold: ColdDriver,
        *,
        peers: Peers,
        book: MigrationBook,
        mark: StorageMark,
        rollbacks: Rollbacks,
    ) -> None:
        self._driver = driver
        self._cold = cold
        self._peers = peers
        self._book = book
        self._storage = SourceChecks(driver, mark, book)
        self._checks = ColdChecks(driver, cold, self._storage)
        self._rollbacks = rollbacks
        self._endings = ColdEndings(driver, cold, peers=peers, book=book)
        self.undo = {
            "end_cold": self._end,
            "forget_cold": self._forget,
            "bring_back": self._bring_back,
            "put_back_kept": cold.put_back,
            "forget_parcels": cold.forget_parcels,
            "forget_state": cold.forget_state,
            "undo_finish": self._undo_finish,
        }

    def migrate_disk_and_power_off(
        self, request: pb.MigrateDiskAndPowerOffRequest, work: Work
    ) -> pb.MigrateDiskAndPowerOffResponse:
        """See ColdMigration. The operation's id serves where the caller chose none."""
        work = self._driver.work(work, "migrate_disk_and_power_off", request.instance_id)
        migration_id = chosen_id(request, work)
        known = self._repeated(request, migration_id)
        if known is not None and known.cold_result.HasField("data"):
            work.ready()
            return known.cold_result
        instance = require_managed(self._driver.find(request.instance_id), request.instance_id)
        if request.HasField("data") and not request.destination_uri:
            why = "on one host nothing is prepared"
            raise InvalidArgumentError(why, field="data")
        with self._peer_of(request) as peer:
            run = ColdRun(
                request,
                work,
                driver=self._driver,
                cold=self._cold,
                book=self._book,
                checks_here=self._checks,
                peer=peer,
            )
            return run.run(migration_id, instance)

    def finish_migration(self, request: pb.FinishMigrationRequest, work: Work) -> Instance:
        """See ColdMigration."""
        work = self._driver.work(work, "finish_migration", request.instance_id)
        migration = self._book.find(request.migration_id)
        if migration is None or migration.instance_id != request.instance_id.lower():
            raise not_prepared()
        if migration.finished:
            work.ready()
            return require_managed(self._driver.find(request.instance_id), request.instance_id)
        if not self._may_be_made(migration, request.data):
            raise not_prepared()
        if missing(migration, self._cold):
            lost = ", ".join(missing(migration, self._cold))
            raise WrongStateError(f"disks have not arrived: {lost}", reason="DISKS_MISSING")
        arrival = Arrival(
            migration=migration,
            spec=self._arriving_spec(migration, request),
            blockers=self._start_blockers(migration) if request.power_on else [],
            power_on=request.power_on,
            begun=lambda: self._begin_making(migration, work),
            done=lambda: self._made(migration),
        )
        if migration.in_place:
            return self._cold.resize(arrival, work)
        return self._cold.make(arrival, work)

    def confirm_migration(
        self, request: pb.ConfirmMigrationRequest, work: Work
    ) -> pb.ConfirmMigrationResponse:
        """See ColdMigration."""
        work = self._driver.work(work, "confirm_migration", request.instance_id)
        return self._endings.confirm(request, work)

    def revert_migration(
        self, request: pb.RevertMigrationRequest, work: Work
    ) -> pb.RevertMigrationResponse:
        """See ColdMigration."""
        work = self._driver.work(work, "revert_migration", request.instance_id)
        return self._endings.revert(request, work)

    # What they share.

    @contextmanager
    def _peer_of(self, request: pb.MigrateDiskAndPowerOffRequest) -> Iterator[Peer | None]:
        """The other host's daemon; None where the instance stays here."""
        if not request.destination_uri:
            yield None
            return
        with self._peers.at(request.destination_uri) as peer:
            yield None if request.HasField("flavor") and self._is_here(request, peer) else peer

    def _is_here(self, request: pb.MigrateDiskAndPowerOffRequest, peer: Peer) -> bool:
        """Whether a destination is this very daemon."""
        answer = peer.check_destination(
            pb.CheckDestinationRequest(
                instance_id=request.instance_id,
                kind=pb.MIGRATION_KIND_COLD,
                source=pb.MigrationSource(),
            )
        )
        blockers, _ = self._storage.check_cold(
            pb.CheckSourceRequest(check=answer.check), pb.MigrationSource()
        )
        return is_same_host(blockers)

    def _repeated(
        self, request: pb.MigrateDiskAndPowerOffRequest, migration_id: str
    ) -> Migration | None:
        """What the same id has begun before; raises AlreadyExistsError for another's."""
        known = self._book.find(migration_id)
        if known is None:
            return None
        same = known.instance_id == request.instance_id.lower() and known.role == SOURCE
        elsewhere = known.data.destination_uri not in ("", request.destination_uri)
        if not same or not known.cold or elsewhere:
            raise AlreadyExistsError(
                f"migration {migration_id} is another one", reason="MIGRATION_EXISTS"
            )
        return known

    def _may_be_made(self, migration: Migration, data: pb.MigrationData) -> bool:
        if migration.in_place:
            return migration.pending
        expected = migration.role != SOURCE and migration.cold and migration.data.prepared
        return expected and data.released and not migration.ended.is_set()

    def _arriving_spec(
        self, migration: Migration, request: pb.FinishMigrationRequest
    ) -> InstanceSpec:
        """What the instance is to be; raises InvalidArgumentError where a disk would shrink."""
        told = migration.spec
        if migration.in_place:
            instance = self._driver.find(migration.instance_id)
            told = resize.resized(
                require_managed(instance, migration.instance_id).spec, migration.data.source.flavor
            )
        spec = request.spec if request.HasField("spec") else told
        if not request.HasField("flavor"):
            return spec
        new = resize.resized(spec, request.flavor)
        old_plan, new_plan = (InstancePlan(migration.instance_id, one) for one in (told, new))
        for error in resize.resize_blockers(old_plan, new_plan, {}):
            raise error
        return new

    def _start_blockers(self, migration: Migration) -> list[ContractError]:
        """Why an instance that is here may not be started, but for the migration itself."""
        instance = self._driver.find(migration.instance_id) if migration.in_place else None
        return [] if instance is None else wanted_blockers(instance)

    def _begin_making(self, migration: Migration, work: Work) -> None:
        work.step("disks", Undo("undo_finish", {"migration_id": migration.migration_id}))
        if not migration.in_place:
            self._book.enter(migration, Phase.MIGRATION_PHASE_COMPLETING)

    def _made(self, migration: Migration) -> None:
        migration.finished = True
        self._book.await_confirmation(migration)

    def _undo_finish(self, migration_id: str) -> None:
        """Another try of FinishMigration finds what this one found."""
        migration = self._book.find(migration_id)
        if migration is None or migration.ended.is_set():
            return
        if migration.in_place:
            self._cold.undo_resize(migration.instance_id)
        migration.finished = False
        with self._book.change(migration) as progress:
            if not migration.in_place:
                progress.phase, progress.done = Phase.MIGRATION_PHASE_PREPARING, False

    def _forget(self, migration_id: str) -> None:
        """Undo of a preparation there; raises PeerUnreachableError where it may be tried again."""
        migration = self._book.find(migration_id)
        if migration is None or migration.ended.is_set():
            return
        self._rollbacks.ask(migration, source_has_guest=False)
        self._end(migration_id)

    def _end(self, migration_id: str) -> None:
        """Undo: it has come to nothing."""
        migration = self._book.find(migration_id)
        if migration is None or migration.ended.is_set():
            return
        migration.cold_result.ClearField("data")
        end_rolled_back(self._book, migration)

    def _bring_back(self, migration_id: str) -> None:
        """Undo of a stop: the instance runs where it did; nobody else was told it may."""
        migration = self._book.find(migration_id)
        if migration is None or self._driver.find(migration.instance_id) is None:
            return
        self._cold.bar(migration.instance_id, "")
        if migration.cold_result.old_power_state in ON:
            self._cold.start(migration.instance_id)
