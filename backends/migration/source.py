"""The source's part of a live migration.

    check ─▶ prepare ─▶ transfer ─▶ switch known ─▶ complete
                 ╰──────────┴─▶ roll back

A running guest is given up only when the destination says that it has it, with this
migration's id. A destination that cannot be asked counts as one that has it: then nothing
is done here, the operation goes on asking.
"""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future

import structlog
from virtrpc.v1 import migration_pb2 as pb
from virtrpc.v1.event_pb2 import EventType
from virtrpc.v1.instance_pb2 import Instance
from virtrpc.v1.types_pb2 import Error

from backends.contract import Peer
from backends.errors import (
    CancelledError,
    ContractError,
    MigrationFailedError,
    PeerRefusedError,
    PeerUnreachableError,
    UnreachableError,
    WrongStateError,
)
from backends.migration import checks, console
from backends.migration.book import SOURCE, Migration, MigrationBook, Phase
from backends.migration.driver import Counters, MigrationDriver, Transfer
from backends.migration.storage import StorageMark
from backends.redaction import redacted
from backends.work import Undo, Work

_LOOK_S = 0.05
_COUNT_S = 0.25
_ASK_AGAIN_S = 1.0
_FORCE_TIMEOUT_S = 300.0
CANCELLED = "MIGRATION_CANCELLED"
log = structlog.get_logger()


class SourceChecks:
    """Can an instance leave, and how?"""

    def __init__(self, driver: MigrationDriver, mark: StorageMark) -> None:
        self._driver = driver
        self._mark = mark

    def check(
        self, request: pb.CheckSourceRequest, instance: Instance
    ) -> tuple[list[ContractError], pb.MigrationData]:
        """Everything in the way, and the data for the destination."""
        source, check, options = self._driver.source(instance), request.check, request.options
        shared = self._mark.sees(check.storage_mark)
        data = pb.MigrationData(
            migration_id=request.migration_id,
            instance_id=request.instance_id,
            kind=pb.MIGRATION_KIND_LIVE,
            source=source,
            destination=check,
            destination_uri=request.destination_uri,
            disks=source.disks,
            interfaces=source.interfaces,
            storage=checks.storage_of(options, shared=shared),
        )
        log = self._driver.console(request.instance_id)
        if log is not None:
            data.console_log_id, data.console_offset = log.log_id, log.end()
        for disk in data.disks:
            disk.storage = checks.SHARED if disk.volume_id else data.storage
        if check.storage_mark and check.storage_mark == self._mark.name:
            return [checks.same_host()], data
        blockers = [
            *checks.state_blockers(instance),
            *checks.storage_blockers(options, data.disks, shared=shared),
            *checks.room_blockers(data.disks, check, over_commit=options.disk_over_commit),
            *checks.option_blockers(options, check),
        ]
        return blockers, data


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
    ) -> None:
        self._request = request
        self._work = work
        self._driver = driver
        self._book = book
        self._checks = checks_here
        self._peer = peer
        self._orchestrated = request.HasField("data")

    def begin(self, migration_id: str, instance: Instance) -> pb.LiveMigrationResult:
        """From the checks to the end."""
        migration = self._enter(migration_id, instance)
        try:
            self._prepare(migration, instance)
            self._move(migration)
        except ContractError as error:
            self._failed(migration, error)
            raise
        return self._complete(migration)

    def resume(self, migration: Migration) -> pb.LiveMigrationResult:
        """Goes on where an earlier run of the daemon, or of this verb, was ended."""
        self._work.ready()
        if migration.phase != Phase.MIGRATION_PHASE_COMPLETING:
            try:
                self._follow(migration)
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
            blockers, data = self._check(migration_id, instance)
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
        self, migration_id: str, instance: Instance
    ) -> tuple[list[ContractError], pb.MigrationData]:
        data = pb.MigrationData()
        data.CopyFrom(self._request.data)
        blockers = checks.state_blockers(instance)
        if self._orchestrated or blockers:
            return blockers, data
        answer = self._peer.check_destination(
            pb.CheckDestinationRequest(
                instance_id=instance.instance_id,
                migration_id=migration_id,
                kind=pb.MIGRATION_KIND_LIVE,
                source=self._driver.source(instance),
                options=self._request.options,
            )
        )
        question = pb.CheckSourceRequest(
            instance_id=instance.instance_id,
            migration_id=migration_id,
            destination_uri=self._request.destination_uri,
            check=answer.check,
            options=self._request.options,
        )
        blockers, data = self._checks.check(question, instance)
        if blockers and blockers[0].reason == "SAME_HOST":
            return blockers, data
        return [*checks.as_errors(answer.blockers, of="destination"), *blockers], data

    def _prepare(self, migration: Migration, instance: Instance) -> None:
        self._book.enter(migration, Phase.MIGRATION_PHASE_PREPARING)
        if self._orchestrated:
            return
        self._work.phase("prepare", percent=5)
        undo = Undo("roll_back_destination", {"migration_id": migration.migration_id})
        self._work.step("prepare", undo)
        answer = self._peer.prepare_destination(
            pb.PrepareDestinationRequest(
                instance_id=migration.instance_id,
                migration_id=migration.migration_id,
                data=migration.data,
                spec=redacted(instance.spec),
                options=self._request.options,
                migration_uri=self._request.migration_uri,
            )
        )
        with self._book.change(migration):
            migration.data.CopyFrom(answer.data)

    def _move(self, migration: Migration) -> None:
        """The transfer, to its end."""
        data, request = migration.data, self._request
        transfer = Transfer(
            migration=migration,
            options=request.options,
            hypervisor_uri=request.hypervisor_uri or data.hypervisor_uri,
            migration_uri=request.migration_uri or data.migration_uri,
        )
        copies = any(disk.storage == checks.COPY for disk in data.disks)
        phase = "COPYING_DISKS" if copies else "COPYING_MEMORY"
        self._book.enter(migration, Phase.Value(f"MIGRATION_PHASE_{phase}"))
        self._work.phase("disks" if copies else "memory", percent=10)
        self._work.step("transfer")
        began = time.monotonic()
        moving = _in_thread(lambda: self._driver.transfer(transfer))
        self._watch(migration, moving, began)
        counters = self._outcome(migration, moving)
        self._switched(migration, counters)

    def _watch(self, migration: Migration, moving: "Future[Counters]", began: float) -> None:
        """Until the transfer is over: counts, stops or forces it."""
        policy, counted = _Policy(self._request.options, began), 0.0
        while not _is_over(moving, _LOOK_S):
            self._heed(migration)
            now = time.monotonic()
            if now - counted >= _COUNT_S:
                counted = now
                self._count(migration)
                self._enforce(migration, policy.due(now, forced=migration.forced))

    def _heed(self, migration: Migration) -> None:
        """A cancel stops the transfer; the stop of the daemon leaves it to the next start."""
        try:
            self._work.checkpoint()
        except CancelledError as error:
            if error.reason != CancelledError.reason:
                raise
            migration.abort = migration.abort or "request"
        if migration.abort and not migration.post_copy:
            self._driver.abort(migration.instance_id)

    def _enforce(self, migration: Migration, due: str) -> None:
        if due == "abort":
            migration.abort = migration.abort or "timeout"
        elif due == "force":
            force(self._driver, self._book, migration, post_copy=migration.post_copy_allowed)

    def _count(self, migration: Migration) -> None:
        try:
            counters = self._driver.counters(migration.instance_id)
        except UnreachableError:
            return  # the transfer goes on without anybody who looks
        if counters is None:
            return
        entered = _phase_of(counters, migration.phase)
        if entered != migration.phase:
            self._book.enter(migration, entered)
            self._work.phase(_PHASE_NAMES[entered], percent=_PERCENT[entered])
            if entered == Phase.MIGRATION_PHASE_POST_COPY:
                self._driver.tell(migration.instance_id, EventType.EVENT_TYPE_POSTCOPY_STARTED, "")
        with self._book.change(migration, durable=False) as progress:
            _fill(progress, counters)

    def _outcome(self, migration: Migration, moving: "Future[Counters]") -> Counters:
        """What came of the transfer, as destination and hypervisor say."""
        error = moving.exception()
        if error is None:
            return moving.result()
        if not isinstance(error, ContractError):
            raise error
        if isinstance(error, UnreachableError):
            self._settle(migration)
        if self._has_switched(migration):
            log.warning("a transfer was told to have failed, and has not", reason=str(error))
            return Counters()
        raise _reason(migration, error)

    def _follow(self, migration: Migration) -> None:
        """Waits for a transfer that an earlier run of the daemon began, and takes its outcome."""
        self._work.phase("memory", percent=50)
        self._settle(migration)
        if not self._has_switched(migration):
            raise _reason(migration, MigrationFailedError("the daemon was restarted meanwhile"))
        self._switched(migration, Counters())

    def _settle(self, migration: Migration) -> None:
        """Returns when no transfer runs any more, with a hypervisor that comes and goes."""
        while True:
            try:
                if self._driver.counters(migration.instance_id) is None:
                    return
                self._heed(migration)
                self._count(migration)
            except UnreachableError:
                log.info("waiting for the hypervisor to know what became of a transfer")
            self._pause(_COUNT_S)

    def _pause(self, seconds: float) -> None:
        """Sleeps; a cancel has been heeded already, only the stop of the daemon ends it."""
        try:
            self._work.wait(seconds)
        except CancelledError as error:
            if error.reason != CancelledError.reason:
                raise
            time.sleep(seconds)

    def _has_switched(self, migration: Migration) -> bool:
        """Whether the destination has the guest; asks until it answers."""
        while True:
            try:
                return self._asked(migration)
            except PeerUnreachableError:
                log.warning("the destination must say who has the guest", uri=self._uri(migration))
                self._pause(_ASK_AGAIN_S)

    def _uri(self, migration: Migration) -> str:
        return migration.data.destination_uri

    def _asked(self, migration: Migration) -> bool:
        question = pb.CompleteDestinationRequest(
            instance_id=migration.instance_id,
            migration_id=migration.migration_id,
            data=migration.data,
            validate_only=True,
        )
        try:
            self._peer.complete_destination(question)
        except PeerRefusedError:
            return False
        return True

    def _switched(self, migration: Migration, counters: Counters) -> None:
        """The point of no return: the guest is the destination's."""
        migration.result = _result(migration, counters)
        self._book.enter(migration, Phase.MIGRATION_PHASE_COMPLETING)
        self._work.commit()

    def _complete(self, migration: Migration) -> pb.LiveMigrationResult:
        result = migration.result
        assert result is not None  # noqa: S101 - it has switched
        if self._orchestrated:
            result.data.CopyFrom(migration.data)
            return result
        self._work.phase("complete", percent=90)
        if not migration.ended.is_set():
            self._peer.complete_destination(self._with_console(migration))
            complete_source(migration, driver=self._driver, peer=self._peer)
            self._book.end(migration, Phase.MIGRATION_PHASE_SUCCEEDED)
        result.total_time.FromNanoseconds(time.monotonic_ns() - migration.began_ns)
        return result

    def _with_console(self, migration: Migration) -> pb.CompleteDestinationRequest:
        """What the destination is told, with the last of the console where it has another file."""
        request = _completion(migration)
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
        self._book.enter(migration, Phase.MIGRATION_PHASE_ROLLING_BACK)
        if not self._orchestrated:
            try:
                roll_back_destination(migration, self._peer)
            except PeerUnreachableError:
                # The operation's rollback asks again and again, and this run is over.
                log.warning("destination not rolled back yet", uri=migration.data.destination_uri)
                return
        end_without(self._book, migration, error)


def roll_back_destination(migration: Migration, peer: Peer) -> None:
    """Asks the destination to forget the migration."""
    peer.rollback_destination(
        pb.RollbackDestinationRequest(
            instance_id=migration.instance_id, migration_id=migration.migration_id
        )
    )


def end_without(
    book: MigrationBook,
    migration: Migration,
    error: ContractError | None,
    *,
    durable: bool = True,
) -> None:
    """The migration has come to nothing: the instance is here as before."""
    cancelled = error is not None and isinstance(error, CancelledError)
    phase = Phase.MIGRATION_PHASE_CANCELLED if cancelled else Phase.MIGRATION_PHASE_FAILED
    record = Error(reason=error.reason, message=str(error)[:1024]) if error else None
    book.end(migration, phase, record, durable=durable)


def complete_source(
    migration: Migration, *, driver: MigrationDriver, peer: Peer
) -> pb.MigrationData:
    """Lets go of everything here, when the destination has said that it has the guest.

    Raises WrongStateError where it does not.
    """
    question = _completion(migration)
    question.validate_only = True
    try:
        peer.complete_destination(question)
    except PeerRefusedError as error:
        raise WrongStateError(
            f"the destination does not have the guest: {error}", reason="NOT_SWITCHED"
        ) from error
    driver.give_up(migration)
    driver.tell(
        migration.instance_id,
        EventType.EVENT_TYPE_MIGRATION_COMPLETED,
        migration.data.destination_uri,
    )
    return migration.data


def force(
    driver: MigrationDriver, book: MigrationBook, migration: Migration, *, post_copy: bool
) -> None:
    """Makes a transfer end."""
    driver.force(migration.instance_id, post_copy=post_copy)
    with book.change(migration):
        migration.forced = True


class _Policy:
    """What is due of a transfer that takes too long."""

    def __init__(self, options: pb.LiveMigrationOptions, began: float) -> None:
        timeout_s = options.timeout.ToNanoseconds() / 1e9
        self._at = began + timeout_s if timeout_s else None
        self._forces = options.timeout_action == pb.MIGRATION_TIMEOUT_ACTION_FORCE_COMPLETE
        self._patience_s = _FORCE_TIMEOUT_S
        if options.HasField("force_timeout"):
            self._patience_s = options.force_timeout.ToNanoseconds() / 1e9

    def due(self, now: float, *, forced: bool) -> str:
        """ "abort", "force" or nothing."""
        if self._at is None or now < self._at:
            return ""
        if not self._forces or now >= self._at + self._patience_s:
            return "abort"
        return "" if forced else "force"


_PHASE_NAMES = {
    Phase.MIGRATION_PHASE_COPYING_DISKS: "disks",
    Phase.MIGRATION_PHASE_COPYING_MEMORY: "memory",
    Phase.MIGRATION_PHASE_POST_COPY: "post-copy",
}
_PERCENT = {
    Phase.MIGRATION_PHASE_COPYING_DISKS: 10,
    Phase.MIGRATION_PHASE_COPYING_MEMORY: 50,
    Phase.MIGRATION_PHASE_POST_COPY: 75,
}


def _phase_of(counters: Counters, now: "Phase.ValueType") -> "Phase.ValueType":
    if counters.post_copy:
        return Phase.MIGRATION_PHASE_POST_COPY
    if counters.memory.processed_bytes and now == Phase.MIGRATION_PHASE_COPYING_DISKS:
        return Phase.MIGRATION_PHASE_COPYING_MEMORY
    return now


def _fill(progress: pb.MigrationProgress, counters: Counters) -> None:
    progress.observed_at.GetCurrentTime()
    for name in ("memory", "disk"):
        counter: pb.MigrationCounter = getattr(counters, name)
        if counter.total_bytes:
            getattr(progress, name).CopyFrom(counter)
    progress.dirty_rate_bytes_per_s = counters.dirty_rate_bytes_per_s
    progress.transfer_rate_bytes_per_s = counters.transfer_rate_bytes_per_s
    progress.iteration = counters.iteration
    progress.throttle_percent = counters.throttle_percent
    if counters.downtime_ms is not None:
        progress.expected_downtime.FromMilliseconds(counters.downtime_ms)


def _result(migration: Migration, counters: Counters) -> pb.LiveMigrationResult:
    memory, disk = counters.memory.processed_bytes, counters.disk.processed_bytes
    result = pb.LiveMigrationResult(
        migration_id=migration.migration_id,
        instance_id=migration.instance_id,
        destination_uri=migration.data.destination_uri,
        memory_transferred_bytes=memory,
        disk_transferred_bytes=disk,
        transferred_bytes=memory + disk,
        iterations=counters.iteration,
        post_copy=counters.post_copy or migration.post_copy,
        forced=migration.forced,
        disks_copied=any(d.storage == checks.COPY for d in migration.data.disks),
    )
    if counters.downtime_ms is not None:
        result.downtime.FromMilliseconds(counters.downtime_ms)
    return result


def _completion(migration: Migration) -> pb.CompleteDestinationRequest:
    return pb.CompleteDestinationRequest(
        instance_id=migration.instance_id,
        migration_id=migration.migration_id,
        data=migration.data,
    )


def _reason(migration: Migration, error: ContractError) -> ContractError:
    """The error of a transfer that was stopped on purpose, or else its own."""
    if migration.abort == "timeout":
        return MigrationFailedError("the transfer took too long", reason="MIGRATION_TIMEOUT")
    if migration.abort:
        return CancelledError("the migration was aborted on request", reason=CANCELLED)
    return error


def _in_thread(work: Callable[[], Counters]) -> "Future[Counters]":
    """Runs it beside the caller, who may stop waiting for it."""
    future: Future[Counters] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except Exception as error:  # noqa: BLE001 - handed to who waits
            future.set_exception(error)

    threading.Thread(target=run, name="migration", daemon=True).start()
    return future


def _is_over(moving: "Future[Counters]", seconds: float) -> bool:
    try:
        moving.exception(timeout=seconds)
    except TimeoutError:
        return False
    return True
