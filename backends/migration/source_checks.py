"""Can an instance leave this host, and how do its files come to the other?"""

from virtrpc.v1 import migration_pb2 as pb
from virtrpc.v1.instance_pb2 import Instance

from backends.errors import ContractError
from backends.migration import checks
from backends.migration.driver import MigrationDriver
from backends.migration.storage import StorageMark


class SourceChecks:
    """Can an instance leave, and how?"""

    def __init__(self, driver: MigrationDriver, mark: StorageMark) -> None:
        self._driver = driver
        self._mark = mark

    def check(
        self, request: pb.CheckSourceRequest, instance: Instance, source: pb.MigrationSource
    ) -> tuple[list[ContractError], pb.MigrationData]:
        """Everything in the way, and the data for the destination."""
        check, options = request.check, request.options
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
            *checks.bound_blockers(instance),
            *checks.storage_blockers(options, data.disks, shared=shared),
            *checks.room_blockers(data.disks, check, over_commit=options.disk_over_commit),
            *checks.option_blockers(options, check),
        ]
        return blockers, data
