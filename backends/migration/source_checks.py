"""Can an instance leave this host, and how do its files come to the other?"""

import uuid
from collections.abc import Sequence

from virtrpc.v1 import migration_pb2 as pb
from virtrpc.v1.instance_pb2 import Instance

from backends.errors import ContractError
from backends.migration import checks
from backends.migration.book import MigrationBook
from backends.migration.driver import MigrationDriver
from backends.migration.state_files import way_of
from backends.migration.storage import StorageMark
from backends.power_states import pending
from backends.work import Work


class SourceChecks:
    """Can an instance leave, and how?"""

    def __init__(self, driver: MigrationDriver, mark: StorageMark, book: MigrationBook) -> None:
        self._driver = driver
        self._mark = mark
        self._book = book

    def check(
        self, request: pb.CheckSourceRequest, instance: Instance, source: pb.MigrationSource
    ) -> tuple[list[ContractError], pb.MigrationData]:
        """Everything in the way of a live migration, and the data for the destination."""
        blockers, data = self._check(request, source, pb.MIGRATION_KIND_LIVE)
        if is_same_host(blockers):
            return blockers, data
        running = checks.state_blockers(instance)
        bound = [*checks.bound_blockers(instance), *checks.share_blockers(instance)]
        able = checks.option_blockers(request.options, request.check)
        return [*running, *bound, *blockers, *able, *self._tls_blockers(request.options)], data

    def check_cold(
        self, request: pb.CheckSourceRequest, source: pb.MigrationSource
    ) -> tuple[list[ContractError], pb.MigrationData]:
        """What of storage and hosts is in the way of a cold one, and the data."""
        return self._check(request, source, pb.MIGRATION_KIND_COLD)

    def _tls_blockers(self, options: pb.LiveMigrationOptions) -> list[ContractError]:
        if options.tls != pb.MIGRATION_TLS_REQUIRED or self._driver.describe().tls:
            return []
        return [checks.no_certificates("this host")]

    def pending(self, instance: Instance) -> list[ContractError]:
        """That an earlier migration is neither confirmed nor reverted."""
        known = self._book.pending_of(instance.instance_id)
        waits = known.migration_id if known is not None else instance.pending_migration_id
        return [pending(waits)] if waits else []

    def _check(
        self,
        request: pb.CheckSourceRequest,
        source: pb.MigrationSource,
        kind: "pb.MigrationKind.ValueType",
    ) -> tuple[list[ContractError], pb.MigrationData]:
        check, options = request.check, request.options
        shared = self._mark.sees(check.storage_mark)
        data = pb.MigrationData(
            migration_id=request.migration_id,
            instance_id=request.instance_id,
            kind=kind,
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
            disk.storage = way_of(disk, data.storage)
        if check.storage_mark and check.storage_mark == self._mark.name:
            return [checks.same_host()], data
        blockers = [
            *checks.storage_blockers(options, data.disks, shared=shared, kind=kind),
            *checks.room_blockers(data.disks, check, over_commit=options.disk_over_commit),
        ]
        return blockers, data


def is_same_host(blockers: Sequence[ContractError]) -> bool:
    """Whether what is in the way is that source and destination are one."""
    return bool(blockers) and blockers[0].reason == "SAME_HOST"


def chosen_id(
    request: pb.LiveMigrateInstanceRequest | pb.MigrateDiskAndPowerOffRequest, work: Work
) -> str:
    """By which a migration is known: the caller's, else its operation's, else a new one."""
    given = request.migration_id or request.data.migration_id
    return given or work.operation_id or str(uuid.uuid4())
