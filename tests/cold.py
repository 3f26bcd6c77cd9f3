"""Cold migrations and resizes that tests ask for, and what came of them."""

import uuid

from virtrpc.v1 import migration_pb2 as pb
from virtrpc.v1 import operation_pb2
from virtrpc.v1.instance_pb2 import Instance
from virtrpc.v1.operation_pb2 import Operation
from virtrpc.v1.spec_pb2 import Flavor

from tests.daemon import Connection
from tests.instances import TIMEOUT_S, finished, succeeded


def cold_request(
    instance_id: str,
    *,
    flavor: Flavor | None = None,
    to: str = "",
    storage: "pb.MigrationStorage.ValueType" = pb.MIGRATION_STORAGE_UNSPECIFIED,
) -> pb.MigrateDiskAndPowerOffRequest:
    """A move to another host, or another flavor, or both; the guest is not asked for long."""
    request = pb.MigrateDiskAndPowerOffRequest(
        instance_id=instance_id,
        migration_id=str(uuid.uuid4()),
        destination_uri=to,
        flavor=flavor,
        storage=storage,
    )
    request.timeout.FromSeconds(0)
    return request


def cold_ended(at: Connection, request: pb.MigrateDiskAndPowerOffRequest) -> Operation:
    """The operation when it has ended, well or not."""
    operation = at.migrations.MigrateDiskAndPowerOff(request, timeout=TIMEOUT_S)
    return finished(at, operation)


def released(
    at: Connection, request: pb.MigrateDiskAndPowerOffRequest
) -> pb.MigrateDiskAndPowerOffResponse:
    """What it came to, which is a success."""
    operation = cold_ended(at, request)
    assert operation.state == operation_pb2.OPERATION_STATE_SUCCEEDED, operation.error
    result = pb.MigrateDiskAndPowerOffResponse()
    operation.result.Unpack(result)
    return result


def finish_request(data: pb.MigrationData, *, power_on: bool = True) -> pb.FinishMigrationRequest:
    """The other half, asked of the host to which it goes."""
    return pb.FinishMigrationRequest(
        instance_id=data.instance_id,
        migration_id=data.migration_id,
        data=data,
        power_on=power_on,
    )


def finished_at(at: Connection, request: pb.FinishMigrationRequest) -> Instance:
    """The instance that was made of what has arrived."""
    return succeeded(at, at.migrations.FinishMigration(request, timeout=TIMEOUT_S))


def confirm(at: Connection, data: pb.MigrationData) -> pb.ConfirmMigrationResponse:
    """The source's copy goes."""
    return at.migrations.ConfirmMigration(
        pb.ConfirmMigrationRequest(instance_id=data.instance_id, migration_id=data.migration_id),
        timeout=TIMEOUT_S,
    )


def revert(
    at: Connection, data: pb.MigrationData, *, power_on: bool = False, fenced: bool = False
) -> pb.RevertMigrationResponse:
    """The source's copy comes back."""
    return at.migrations.RevertMigration(
        pb.RevertMigrationRequest(
            instance_id=data.instance_id,
            migration_id=data.migration_id,
            power_on=power_on,
            destination_fenced=fenced,
        ),
        timeout=TIMEOUT_S,
    )
