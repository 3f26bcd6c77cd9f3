"""The source's part of a live migration.

    check ─▶ prepare ─▶ transfer ─▶ switch known ─▶ complete
                 ╰──────────┴─▶ roll back

A running guest is given up only when the destination says that it has it, with this
migration's id.
"""

import time
from contextlib import suppress

import structlog
from virtrpc.v1 import migration_pb2 as pb
from virtrpc.v1.instance_pb2 import Instance
from virtrpc.v1.types_pb2 import PowerState

from backends.contract import Peer
from backends.errors import (
    CancelledError,
    ContractError,
    MigrationFailedError,
    PeerRefusedError,
    PeerUnreachableError,
    UnreachableError,
)
from backends.migration import checks, console
from backends.migration.answers import NOT_THERE, answered, prepared
from backends.migration.book import SOURCE, Migration, MigrationBook, Phase
from backends.migration.course import Course
from backends.migration.driver import Counters, MigrationDriver, Transfer
from backends.migration.endings import (
    CANCELLED,
    POST_COPY_LOST,
    completion,
    end_without,
    let_go,
    post_copy_lost,
    reason_of,
    record_of,
)
from backends.migration.progress import result_of
from backends.migration.rollbacks import Rollbacks
from backends.migration.source_checks import SourceChecks, is_same_host
from backends.migration.volumes import as_they_are, secret_needed
from backends.power_states import POST_COPY_BROKEN
from backends.work import Undo, Work

log = structlog.get_logger()


class LiveRun:
    """One run of LiveMigrateInstance, begun or taken up again."""

    def __init__(
        self,
        request: pb.LiveMigrateInstanceRequest,
        work: Work,
        *,
        driver: MigrationDriver,
        book: MigrationBook,
        checks_here: SourceChecks,
        peer: Peer,
        rollbacks: Rollbacks,
    ) -> None:
        self._request = request
        self._work = work
        self._driver = driver
        self._book = book
        self._checks = checks_here
        self._peer = peer
        self._rollbacks = rollbacks
        self._asked_there = False
        """The destination was asked to make ready."""
        self._orchestrated = request.HasField("data")
        self._course = Course(work, driver=driver, book=book, peer=peer)

    def begin(self, migration_id: str, instance: Instance) -> pb.LiveMigrationResult:
        """From the checks to the end."""
        migration = self._enter(migration_id, instance)
        try:
            self._prepare(migration, instance)
            migration.data.paused = instance.power_state == PowerState.POWER_STATE_PAUSED
            self._switched(migration, self._course.run(migration, self._transfer(migration)))
        except ContractError as error:
            self._failed(migration, error)
            raise
        return self._complete(migration)

    def resume(self, migration: Migration) -> pb.LiveMigrationResult:
        """Goes on where an earlier run of the daemon, or of this verb, was ended."""
        self._work.ready()
        self._asked_there = True
        migration.post_copy_allowed = self._request.options.post_copy
        if migration.phase != Phase.MIGRATION_PHASE_COMPLETING:
            try:
                self._switched(migration, self._course.follow(migration, self._transfer(migration)))
            except ContractError as error:
                self._failed(migration, error)
                raise
        return self._complete(migration)

    # The steps.

    def _enter(self, migration_id: str, instance: Instance) -> Migration:
        """Checks both sides; what stands in the way ends the migration."""
        migration = self._new(migration_id)
        if self._work.operation_id:
            self._book.begin(migration, Phase.MIGRATION_PHASE_CHECKING, durable=False)
        try:
            self._work.phase("check", percent=1)
            blockers, data = self._check(migration, instance)
            self._work.ready(blockers)
        except ContractError as error:
            end_without(self._book, migration, error, durable=False)
            raise
        migration.data.CopyFrom(data)
        return migration

    def _new(self, migration_id: str) -> Migration:
        request = self._request
        data = pb.MigrationData(
            migration_id=migration_id.lower(),
            instance_id=request.instance_id.lower(),
            kind=pb.MIGRATION_KIND_LIVE,
            destination_uri=request.destination_uri,
        )
        migration = Migration(SOURCE, data, post_copy_allowed=request.options.post_copy)
        migration.progress.operation_id = self._work.operation_id
        return migration

    def _check(
        self, migration: Migration, instance: Instance
    ) -> tuple[list[ContractError], pb.MigrationData]:
        data = pb.MigrationData()
        data.CopyFrom(self._request.data)
        blockers = [*self._checks.pending(instance), *checks.state_blockers(instance)]
        if self._orchestrated or blockers:
            return blockers, data
        source = self._driver.source(instance)
        keyless = [
            secret_needed(disk, f"source.disks[{index}]")
            for index, disk in enumerate(source.disks)
            if disk.needs_secret
        ]
        answer = self._peer.check_destination(
            pb.CheckDestinationRequest(
                instance_id=instance.instance_id,
                migration_id=migration.migration_id,
                kind=pb.MIGRATION_KIND_LIVE,
                source=source,
                options=self._request.options,
            ),
            checkpoint=lambda: self._heed(migration),
        )
        question = pb.CheckSourceRequest(
            instance_id=instance.instance_id,
            migration_id=migration.migration_id,
            destination_uri=self._request.destination_uri,
            check=answer.check,
            options=self._request.options,
        )
        blockers, data = self._checks.check(question, instance, source)
        if is_same_host(blockers):
            return blockers, data
        theirs = checks.as_errors(answer.blockers, of="destination")
        return [*theirs, *blockers, *keyless], data

    def _heed(self, migration: Migration) -> None:
        """Ends the wait for a destination that is slow or silent, when nobody wants it any more."""
        self._work.checkpoint()
        if migration.abort:
            raise reason_of(migration, MigrationFailedError("stopped"))

    def _prepare(self, migration: Migration, instance: Instance) -> None:
        self._book.enter(migration, Phase.MIGRATION_PHASE_PREPARING)
        if self._orchestrated:
            return
        self._work.phase("prepare", percent=5)
        undo = Undo("roll_back_destination", {"migration_id": migration.migration_id})
        self._work.step("prepare", undo)
        self._asked_there = True
        answer = self._peer.prepare_destination(
            pb.PrepareDestinationRequest(
                instance_id=migration.instance_id,
                migration_id=migration.migration_id,
                data=migration.data,
                spec=as_they_are(instance.spec, migration.data.disks),
                options=self._request.options,
                migration_uri=self._request.migration_uri,
                security_groups=self._driver.connections.groups_of(instance.spec.interfaces),
            ),
            checkpoint=lambda: self._heed(migration),
        )
        with self._book.change(migration):
            migration.data.CopyFrom(prepared(migration.data, answer.data))

    def _transfer(self, migration: Migration) -> Transfer:
        data, request = migration.data, self._request
        return Transfer(
            migration=migration,
            options=request.options,
            hypervisor_uri=request.hypervisor_uri or data.hypervisor_uri,
            migration_uri=request.migration_uri or data.migration_uri,
            left=lambda: self._course.left(migration),
        )

    def _switched(self, migration: Migration, counters: Counters) -> None:
        """The point of no return: the guest is the destination's."""
        migration.result = result_of(migration, counters)
        with self._book.change(migration) as progress:
            progress.phase = Phase.MIGRATION_PHASE_COMPLETING
            for counter in (progress.memory, progress.disk):
                if counter.remaining_bytes:  # as it was last counted
                    counter.remaining_bytes = 0
            if self._course.lost:
                progress.error.CopyFrom(record_of(post_copy_lost()))
        self._work.commit()

    def _complete(self, migration: Migration) -> pb.LiveMigrationResult:
        result = migration.result
        assert result is not None  # noqa: S101 - it has switched
        if self._orchestrated:
            self._course.start_there(migration)
            result.data.CopyFrom(migration.data)
            return result
        self._work.phase("complete", percent=90)
        if not migration.ended.is_set():
            self._hand_over(migration)
        result.total_time.FromNanoseconds(time.monotonic_ns() - migration.began_ns)
        return result

    def _hand_over(self, migration: Migration) -> None:
        """The destination takes over, this side lets go; raises POST_COPY_LOST."""
        lost = migration.progress.error.reason == POST_COPY_LOST
        request = self._with_console(migration)
        try:
            with answered(*NOT_THERE):
                arrived = self._peer.complete_destination(request).instance
        except PeerRefusedError:
            if not lost:
                raise
            # It has no domain of it, which it gets before it starts one: it never ran there.
            log.exception("what is left of a lost guest is here", migration=migration.migration_id)
            with suppress(PeerUnreachableError):
                self._rollbacks.ask(migration, source_has_guest=True)
        else:
            let_go(migration, self._driver)
            lost = lost or arrived.power_state_reason == POST_COPY_BROKEN
        if lost:
            end_without(self._book, migration, post_copy_lost())
            raise post_copy_lost()
        self._book.end(migration, Phase.MIGRATION_PHASE_SUCCEEDED)

    def _with_console(self, migration: Migration) -> pb.CompleteDestinationRequest:
        """What the destination is told, with the last of the console where it has another file."""
        request = completion(migration)
        log = self._driver.console(migration.instance_id)
        if log is not None and migration.data.storage == checks.COPY:
            request.console_log.extend(console.last_pieces(log))
            request.data.console_offset = log.end()
        return request

    def _failed(self, migration: Migration, error: ContractError) -> None:
        """Takes back at the destination what was made ready; raises where that is not known yet."""
        abandoned = isinstance(error, CancelledError) and error.reason not in (
            CancelledError.reason,
            CANCELLED,
        )
        if abandoned:
            return
        if self._orchestrated or not self._asked_there:
            end_without(self._book, migration, error)
            return
        with self._book.change(migration) as progress:
            progress.phase = Phase.MIGRATION_PHASE_ROLLING_BACK
            progress.error.CopyFrom(record_of(error))
        # Where it, or the hypervisor here, stays silent, the operation's rollback asks again.
        with suppress(UnreachableError):
            has_guest = self._driver.find(migration.instance_id) is not None
            self._rollbacks.ask(migration, source_has_guest=has_guest)
            end_without(self._book, migration, error)
