"""The source's part of a cold migration, up to where it waits for confirmation.

    check ─▶ prepare ─▶ stop ─▶ disks ─▶ disconnect ─▶ released
                ╰─────────┴───────┴───── undone in reverse: started again, forgotten there

On one host there is nobody to prepare: definition and disks are kept beside copies of them.
The destination may start the instance only with what is answered at the end, so the source
may start it again at any moment before.
"""

import time

from virtrpc.v1 import migration_pb2 as pb
from virtrpc.v1.instance_pb2 import Instance
from virtrpc.v1.spec_pb2 import Flavor, InstanceSpec
from virtrpc.v1.types_pb2 import Error, PowerState

from backends.contract import Peer
from backends.durations import seconds
from backends.errors import (
    CancelledError,
    ContractError,
    MigrationFailedError,
    NoRoomError,
    PeerRefusedError,
    PeerUnreachableError,
)
from backends.migration import checks
from backends.migration.answers import prepared
from backends.migration.book import SOURCE, Migration, MigrationBook, Phase
from backends.migration.cold_checks import ColdChecks
from backends.migration.cold_driver import ColdDriver
from backends.migration.driver import MigrationDriver
from backends.migration.endings import end_without
from backends.migration.parcels import Sending, is_sent
from backends.migration.resize import resized
from backends.migration.source_checks import is_same_host
from backends.redaction import redacted
from backends.work import Undo, Work

ON = (PowerState.POWER_STATE_RUNNING, PowerState.POWER_STATE_PAUSED)
_DEFAULT_TIMEOUT_S, _DEFAULT_RETRY_S = 60.0, 10.0
_SEND_TRIES, _SEND_AGAIN_S = 5, 2.0
_RESENT = ("CHECKSUM_MISMATCH",)


class ColdRun:
    """One run of MigrateDiskAndPowerOff."""

    def __init__(
        self,
        request: pb.MigrateDiskAndPowerOffRequest,
        work: Work,
        *,
        driver: MigrationDriver,
        cold: ColdDriver,
        book: MigrationBook,
        checks_here: ColdChecks,
        peer: Peer | None,
    ) -> None:
        """`peer` None: the instance stays on this host."""
        self._request = request
        self._work = work
        self._driver = driver
        self._cold = cold
        self._book = book
        self._checks = checks_here
        self._peer = peer
        self._orchestrated = request.HasField("data")

    def run(self, migration_id: str, instance: Instance) -> pb.MigrateDiskAndPowerOffResponse:
        """From the checks to where it waits for confirmation."""
        spec = self._spec(instance)
        migration = self._enter(migration_id, instance, spec)
        try:
            self._prepare(migration, spec)
            self._stop(migration, instance)
            self._move_disks(migration)
            self._disconnect(migration)
        except ContractError as error:
            self._failed(migration, error)
            raise
        return self._released(migration)

    # The steps.

    def _enter(self, migration_id: str, instance: Instance, spec: InstanceSpec) -> Migration:
        """Checks both sides; what stands in the way ends the migration."""
        data = pb.MigrationData(
            migration_id=migration_id.lower(),
            instance_id=instance.instance_id,
            kind=pb.MIGRATION_KIND_COLD,
            destination_uri=self._request.destination_uri,
        )
        migration = Migration(SOURCE, data)
        migration.progress.operation_id = self._work.operation_id
        if self._work.operation_id:
            self._book.begin(migration, Phase.MIGRATION_PHASE_CHECKING, durable=False)
        try:
            self._work.phase("check", percent=1)
            blockers, checked = self._check(migration_id, instance, spec)
            self._work.ready(blockers)
        except ContractError as error:
            end_without(self._book, migration, error, durable=False)
            raise
        data.CopyFrom(checked)
        data.resize = spec.flavor != instance.spec.flavor
        return migration

    def _check(
        self, migration_id: str, instance: Instance, spec: InstanceSpec
    ) -> tuple[list[ContractError], pb.MigrationData]:
        source = self._checks.source(instance, spec)
        if self._peer is None:
            blockers, data = self._checks.in_place(instance, spec, source)
            data.migration_id = migration_id.lower()
            return blockers, data
        if self._orchestrated:
            told = self._request.data
            lacks = self._checks.prepared(told, source)
            return [*self._checks.leaving(instance, spec, source), *lacks], told
        answer = self._peer.check_destination(
            pb.CheckDestinationRequest(
                instance_id=instance.instance_id,
                migration_id=migration_id,
                kind=pb.MIGRATION_KIND_COLD,
                source=source,
                options=self._options(),
            )
        )
        blockers, data = self._checks.between(
            self._question(migration_id, instance, answer.check), instance
        )
        if is_same_host(blockers):
            return blockers, data
        theirs = checks.as_errors(answer.blockers, of="destination")
        return [*theirs, *blockers, *self._checks.unprepared(spec, source)], data

    def _prepare(self, migration: Migration, spec: InstanceSpec) -> None:
        self._work.phase("prepare", percent=5)
        alone = self._peer is None or self._orchestrated
        undo = Undo(
            "end_cold" if alone else "forget_cold", {"migration_id": migration.migration_id}
        )
        self._work.step("prepare", undo)
        self._book.enter(migration, Phase.MIGRATION_PHASE_PREPARING)
        if alone or self._peer is None:
            return
        answer = self._peer.prepare_destination(
            pb.PrepareDestinationRequest(
                instance_id=migration.instance_id,
                migration_id=migration.migration_id,
                data=migration.data,
                spec=redacted(spec),
                options=self._options(),
                security_groups=self._driver.connections.groups_of(spec.interfaces),
            )
        )
        with self._book.change(migration):
            migration.data.CopyFrom(prepared(migration.data, answer.data))

    def _stop(self, migration: Migration, instance: Instance) -> None:
        """From here on nobody starts it but who undoes this."""
        result, request = migration.cold_result, self._request
        self._work.phase("stop", percent=10)
        self._work.step("stop", Undo("bring_back", {"migration_id": migration.migration_id}))
        result.old_power_state = instance.power_state
        self._book.enter(migration, Phase.MIGRATION_PHASE_POWERING_OFF)
        result.forced = self._cold.shut_down(
            migration.instance_id,
            timeout_s=seconds(request, "timeout", _DEFAULT_TIMEOUT_S),
            retry_s=seconds(request, "retry_interval", _DEFAULT_RETRY_S) or _DEFAULT_RETRY_S,
            work=self._work,
        )
        self._cold.bar(migration.instance_id, migration.migration_id)

    def _move_disks(self, migration: Migration) -> None:
        self._work.phase("disks", percent=30)
        if self._peer is None:
            undo = Undo("put_back_kept", {"instance_id": migration.instance_id})
            self._work.step("disks", undo)
            self._book.enter(migration, Phase.MIGRATION_PHASE_COPYING_DISKS)
            self._cold.keep(migration.instance_id, self._work)
            return
        self._work.step("disks", Undo("forget_parcels", {"instance_id": migration.instance_id}))
        self._book.enter(migration, Phase.MIGRATION_PHASE_COPYING_DISKS)
        for disk in filter(is_sent, migration.data.disks):
            self._send(migration, disk, self._peer)
        self._cold.forget_parcels(migration.instance_id)

    def _disconnect(self, migration: Migration) -> None:
        self._work.phase("disconnect", percent=90)
        if self._peer is not None:
            self._work.step("disconnect")
            self._cold.release(migration.instance_id)

    def _released(self, migration: Migration) -> pb.MigrateDiskAndPowerOffResponse:
        """The point of no return: whoever has the answer may start it there."""
        result = migration.cold_result
        migration.data.released = True
        log = self._driver.console(migration.instance_id)
        if log is not None:
            migration.data.console_offset = log.end()
        result.data.CopyFrom(migration.data)
        result.total_time.FromNanoseconds(time.monotonic_ns() - migration.began_ns)
        self._book.await_confirmation(migration)
        self._work.commit()
        return result

    def _failed(self, migration: Migration, error: ContractError) -> None:
        """Notes why; what is to be undone the operation's steps know."""
        if isinstance(error, CancelledError) and error.reason != CancelledError.reason:
            return  # the daemon stops
        with self._book.change(migration) as progress:
            progress.phase = Phase.MIGRATION_PHASE_ROLLING_BACK
            progress.error.CopyFrom(Error(reason=error.reason, message=str(error)[:1024]))

    # What they need.

    def _spec(self, instance: Instance) -> InstanceSpec:
        flavor = self._flavor or instance.spec.flavor
        if self._peer is None:
            return resized(instance.spec, flavor)
        return self._checks.leaving_spec(instance, flavor)

    @property
    def _flavor(self) -> Flavor | None:
        return self._request.flavor if self._request.HasField("flavor") else None

    def _options(self) -> pb.LiveMigrationOptions:
        return pb.LiveMigrationOptions(storage=self._request.storage)

    def _question(
        self, migration_id: str, instance: Instance, check: pb.DestinationCheck
    ) -> pb.CheckSourceRequest:
        return pb.CheckSourceRequest(
            instance_id=instance.instance_id,
            migration_id=migration_id,
            destination_uri=self._request.destination_uri,
            check=check,
            options=self._options(),
            kind=pb.MIGRATION_KIND_COLD,
            flavor=self._flavor,
        )

    def _send(self, migration: Migration, disk: pb.MigrationDisk, peer: Peer) -> None:
        """Sends a disk, again from its beginning where the other side was away."""
        parcel = self._cold.parcel(migration.data, disk, self._work)
        before = migration.progress.disk.processed_bytes
        with self._book.change(migration, durable=False) as progress:
            progress.disk.total_bytes += parcel.path.stat().st_size
        for attempt in range(_SEND_TRIES):
            sending = Sending(
                parcel,
                migration.data,
                bytes_per_s=self._request.bandwidth_mib_per_s << 20,
                passed=lambda offset: self._count(migration, before + offset),
            )
            try:
                peer.receive_disk(sending.requests(), self._work.checkpoint)
            except (PeerUnreachableError, PeerRefusedError) as error:
                again = isinstance(error, PeerUnreachableError) or error.peer_reason in _RESENT
                if not again or attempt + 1 == _SEND_TRIES:
                    raise _broken(disk, error) from error
                self._work.wait(_SEND_AGAIN_S)
            else:
                migration.cold_result.transferred_bytes += sending.sent_bytes
                return
            finally:
                sending.stop()

    def _count(self, migration: Migration, processed: int) -> None:
        with self._book.change(migration, durable=False) as progress:
            progress.observed_at.GetCurrentTime()
            progress.disk.processed_bytes = processed
            progress.disk.remaining_bytes = max(progress.disk.total_bytes - processed, 0)


def _broken(disk: pb.MigrationDisk, error: ContractError) -> ContractError:
    if isinstance(error, PeerUnreachableError):
        return error
    if error.metadata.get("peer_reason") == NoRoomError.reason:
        return NoRoomError(f"disk {disk.device_name} does not fit at the destination")
    return MigrationFailedError(f"disk {disk.device_name} did not arrive: {error}")
