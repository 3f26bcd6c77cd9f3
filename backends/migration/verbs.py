"""The verbs of live migration, alike on every backend: the source's, and what both need."""

import time
from pathlib import Path

from virtrpc.v1 import migration_pb2 as pb

from backends.contract import CpuCompatibility, Facet, LiveMigration, Peers
from backends.errors import (
    AlreadyExistsError,
    CancelledError,
    ContractError,
    InstanceNotFoundError,
    MigrationFailedError,
    WrongStateError,
)
from backends.migration import checks
from backends.migration.book import SOURCE, Migration, MigrationBook, Phase
from backends.migration.cold import ColdMigrations
from backends.migration.cold_checks import ColdChecks
from backends.migration.cold_driver import ColdDriver
from backends.migration.destination import Destination
from backends.migration.driver import MigrationDriver
from backends.migration.endings import (
    CANCELLED,
    complete_source,
    end_rolled_back,
    force,
)
from backends.migration.receiving import Receptions, remove_partial
from backends.migration.rollbacks import Rollbacks
from backends.migration.source import LiveRun
from backends.migration.source_checks import SourceChecks, chosen_id
from backends.migration.storage import StorageChecks, StorageMark, remove_old_marks
from backends.specification import require_managed
from backends.work import Work

_TOO_LATE = (
    Phase.MIGRATION_PHASE_POST_COPY,
    Phase.MIGRATION_PHASE_POST_COPY_BROKEN,
    Phase.MIGRATION_PHASE_SWITCHING,
    Phase.MIGRATION_PHASE_COMPLETING,
)
_COPYING = (
    Phase.MIGRATION_PHASE_COPYING_DISKS,
    Phase.MIGRATION_PHASE_COPYING_MEMORY,
    Phase.MIGRATION_PHASE_POST_COPY,
    Phase.MIGRATION_PHASE_SWITCHING,
)
_FORCE = pb.ForceCompleteMethod


class HostMigrations:
    """A host's facets of migration, with what they share."""

    def __init__(
        self,
        driver: MigrationDriver,
        cold: ColdDriver,
        *,
        peers: Peers,
        book: MigrationBook,
        folder: Path,
        tls: bool,
        patience_s: float,
    ) -> None:
        """`tls`: the hypervisors encrypt what they send, where a migration does not say.

        `patience_s`: how long an operation waits for a destination to roll back.
        """
        self.book = book
        self._mark = StorageMark(folder, book.folder / "mark")
        self._folder = folder
        self.rollbacks = Rollbacks(peers, book, patience_s=patience_s)
        cold_verbs = ColdMigrations(
            driver, cold, peers=peers, book=book, mark=self._mark, rollbacks=self.rollbacks
        )
        self.receptions = Receptions(book, cold)
        self.facets: tuple[Facet, ...] = (
            LiveMigrations(
                driver,
                cold,
                peers=peers,
                book=book,
                mark=self._mark,
                tls=tls,
                rollbacks=self.rollbacks,
            ),
            Destination(driver, book, self._mark),
            cold_verbs,
            StorageChecks(folder),
            CpuChecks(driver),
        )

    def open(self) -> None:
        """What is done once, at the daemon's start."""
        self.book.load()
        self._mark.place()
        remove_old_marks(self._folder, now_s=time.time())
        remove_partial(self._folder)

    def close(self) -> None:
        """Takes away what is only there while the daemon runs."""
        self._mark.remove()


class CpuChecks(CpuCompatibility):
    """Comparing CPUs is the hypervisor's."""

    def __init__(self, driver: MigrationDriver) -> None:
        self._driver = driver

    def compare_cpu(self, request: pb.CompareCpuRequest) -> pb.CompareCpuResponse:
        """See CpuCompatibility."""
        return self._driver.compare_cpu(request.cpu, guest=request.guest)


class LiveMigrations(LiveMigration):
    """What is asked of the host from which an instance goes."""

    def __init__(
        self,
        driver: MigrationDriver,
        cold: ColdDriver,
        *,
        peers: Peers,
        book: MigrationBook,
        mark: StorageMark,
        tls: bool,
        rollbacks: Rollbacks,
    ) -> None:
        self._driver = driver
        self._peers = peers
        self._tls = tls
        self._book = book
        self._checks = SourceChecks(driver, mark, book)
        self._rollbacks = rollbacks
        self._cold_checks = ColdChecks(driver, cold, self._checks)
        self.undo = {"roll_back_destination": self._roll_back}

    def live_migrate_instance(
        self, request: pb.LiveMigrateInstanceRequest, work: Work
    ) -> pb.LiveMigrationResult:
        """See LiveMigration. The operation's id serves where the caller chose none."""
        work = self._driver.work(work, "live_migrate_instance", request.instance_id)
        migration_id = chosen_id(request, work)
        known = self._repeated(request, migration_id)
        if known is not None and known.ended.is_set() and not _came_to_nothing(known):
            work.ready()
            return _first_outcome(known)
        if known is not None and known.phase == Phase.MIGRATION_PHASE_ROLLING_BACK:
            work.ready()
            raise _failure(known)
        with self._peers.at(request.destination_uri) as peer:
            run = LiveRun(
                self._configured(request),
                work,
                driver=self._driver,
                book=self._book,
                checks_here=self._checks,
                peer=peer,
                rollbacks=self._rollbacks,
            )
            if known is not None and known.phase in (*_COPYING, *_TOO_LATE):
                return run.resume(known)
            instance = require_managed(self._driver.find(request.instance_id), request.instance_id)
            return run.begin(migration_id, instance)

    def abort_live_migration(
        self, request: pb.AbortLiveMigrationRequest, work: Work
    ) -> pb.AbortLiveMigrationResponse:
        """See LiveMigration."""
        work = self._driver.work(work, "abort_live_migration", request.instance_id)
        migration = self._asked_for(request.instance_id, request.migration_id)
        reply = pb.AbortLiveMigrationResponse(migration_id=migration.migration_id)
        if migration.phase == Phase.MIGRATION_PHASE_CANCELLED:
            work.ready()
            reply.already_aborted = True
            return reply
        work.ready(_abort_blockers(migration))
        work.step("abort")
        migration.abort = migration.abort or "request"
        while not migration.ended.is_set():
            work.wait(0.05)
        if migration.phase == Phase.MIGRATION_PHASE_SUCCEEDED:
            raise WrongStateError("the switch had begun", reason="TOO_LATE")
        return reply

    def force_complete_live_migration(
        self, request: pb.ForceCompleteLiveMigrationRequest, work: Work
    ) -> pb.ForceCompleteLiveMigrationResponse:
        """See LiveMigration."""
        work = self._driver.work(work, "force_complete_live_migration", request.instance_id)
        migration = self._asked_for(request.instance_id, request.migration_id)
        reply = pb.ForceCompleteLiveMigrationResponse(migration_id=migration.migration_id)
        if migration.ended.is_set() or migration.forced:
            work.ready()
            return reply
        post_copy = request.method == _FORCE.FORCE_COMPLETE_METHOD_POST_COPY or (
            not request.method and migration.post_copy_allowed
        )
        work.ready(_force_blockers(migration, post_copy=post_copy))
        work.step("force")
        force(self._driver, self._book, migration, post_copy=post_copy)
        reply.method = (
            _FORCE.FORCE_COMPLETE_METHOD_POST_COPY
            if post_copy
            else _FORCE.FORCE_COMPLETE_METHOD_PAUSE
        )
        return reply

    def check_source(self, request: pb.CheckSourceRequest) -> pb.CheckSourceResponse:
        """See LiveMigration."""
        instance = require_managed(self._driver.find(request.instance_id), request.instance_id)
        if request.kind == pb.MIGRATION_KIND_COLD:
            blockers, data = self._cold_checks.between(request, instance)
        else:
            source = self._driver.source(instance)
            blockers, data = self._checks.check(request, instance, source)
        if blockers:
            return pb.CheckSourceResponse(blockers=checks.as_messages(blockers))
        return pb.CheckSourceResponse(data=data)

    def complete_source(
        self, request: pb.CompleteSourceRequest, work: Work
    ) -> pb.CompleteSourceResponse:
        """See LiveMigration."""
        work = self._driver.work(work, "complete_source", request.instance_id)
        migration = self._book.find(request.migration_id)
        if self._driver.find(request.instance_id) is not None:
            raise WrongStateError("the guest is still here", reason="NOT_SWITCHED")
        if migration is None or migration.role != SOURCE:
            raise InstanceNotFoundError(request.instance_id)
        if migration.phase == Phase.MIGRATION_PHASE_SUCCEEDED:
            work.ready()
            return pb.CompleteSourceResponse(data=migration.data)
        work.ready()
        work.step("complete")
        with self._peers.at(migration.data.destination_uri) as peer:
            complete_source(migration, driver=self._driver, peer=peer)
        self._book.end(migration, Phase.MIGRATION_PHASE_SUCCEEDED)
        return pb.CompleteSourceResponse(data=migration.data)

    def _configured(self, request: pb.LiveMigrateInstanceRequest) -> pb.LiveMigrateInstanceRequest:
        """The request with what the configuration says of things that it leaves open."""
        whole = pb.LiveMigrateInstanceRequest()
        whole.CopyFrom(request)
        if self._tls and not whole.options.tls:
            whole.options.tls = pb.MIGRATION_TLS_REQUIRED
        return whole

    def _repeated(
        self, request: pb.LiveMigrateInstanceRequest, migration_id: str
    ) -> Migration | None:
        """What the same id has begun before; raises AlreadyExistsError for another's."""
        known = self._book.find(migration_id)
        if known is None or known.role != SOURCE:
            return None
        same = known.instance_id == request.instance_id.lower() and not known.cold
        if not same or known.data.destination_uri != request.destination_uri:
            raise AlreadyExistsError(
                f"migration {migration_id} is another one", reason="MIGRATION_EXISTS"
            )
        return known

    def _asked_for(self, instance_id: str, migration_id: str) -> Migration:
        """The migration that is meant; raises WrongStateError where there is none."""
        migration = self._book.last_of(instance_id)
        mine = migration is not None and migration.role == SOURCE and not migration.cold
        if migration is None or not mine or _came_to_nothing(migration):
            if self._driver.find(instance_id) is None:
                raise InstanceNotFoundError(instance_id)
            raise _no_migration()
        if migration_id and migration.migration_id != migration_id.lower():
            raise _no_migration()
        return migration

    def _roll_back(self, migration_id: str) -> None:
        """Undo of the preparation, for a run that could not do it itself."""
        migration = self._book.find(migration_id)
        if migration is None or migration.ended.is_set():
            return
        has_guest = self._driver.find(migration.instance_id) is not None
        self._rollbacks.ask(migration, source_has_guest=has_guest)
        end_rolled_back(self._book, migration)


def _came_to_nothing(migration: Migration) -> bool:
    """The checks were its end: nothing was begun."""
    return migration.ended.is_set() and not migration.data.prepared


def _no_migration() -> ContractError:
    return WrongStateError("no such migration of the instance runs", reason="NO_MIGRATION")


def _abort_blockers(migration: Migration) -> list[ContractError]:
    if migration.ended.is_set():
        return [_no_migration()]
    if migration.phase in _TOO_LATE:
        return [WrongStateError("the switch has begun", reason="TOO_LATE")]
    return []


def _force_blockers(migration: Migration, *, post_copy: bool) -> list[ContractError]:
    if migration.phase not in _COPYING:
        return [WrongStateError("memory is not transferred yet", reason="WRONG_PHASE")]
    if post_copy and not migration.post_copy_allowed:
        why = "the migration was begun without post-copy"
        return [WrongStateError(why, reason="POST_COPY_NOT_ALLOWED", field="method")]
    return []


def _first_outcome(migration: Migration) -> pb.LiveMigrationResult:
    """What a migration that has ended came to; raises what it failed with."""
    if migration.result is not None:
        return migration.result
    raise _failure(migration)


def _failure(migration: Migration) -> ContractError:
    """What a migration has failed with, as the book has it."""
    error = migration.progress.error
    if migration.phase == Phase.MIGRATION_PHASE_CANCELLED or error.reason == CANCELLED:
        return CancelledError("the migration was aborted on request", reason=CANCELLED)
    return MigrationFailedError(error.message or "the migration broke", reason=error.reason or None)
