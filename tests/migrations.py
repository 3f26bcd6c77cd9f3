"""Migrations that tests ask for, and what came of them."""

import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
from virtrpc.v1 import instance_pb2, migration_pb2, operation_pb2
from virtrpc.v1.instance_pb2 import Instance
from virtrpc.v1.migration_pb2 import (
    LiveMigrateInstanceRequest,
    LiveMigrationOptions,
    LiveMigrationResult,
    MigrationProgress,
)
from virtrpc.v1.operation_pb2 import Operation

from tests.daemon import Connection, DaemonProcess
from tests.instances import TIMEOUT_S, finished


@dataclass(frozen=True)
class Host:
    """A host as its tests use it: its daemon, a connection, and where peers find it."""

    daemon: DaemonProcess
    connection: Connection
    uri: str


@contextmanager
def fakes(
    make_folder: Callable[[], Path], add_images: Callable[[DaemonProcess], None]
) -> Iterator[tuple[Host, Host]]:
    """Two fakes: each has volumes of its own, and may share the first one's `sources`."""
    folders = [make_folder() for _ in range(2)]
    shares = f"--share-dir={folders[0]}/sources"
    daemons = [
        DaemonProcess(folder, backend="fake", arguments=[f"--volume-dir={folder}/volumes", shares])
        for folder in folders
    ]
    daemons[0].sources.mkdir()
    for daemon in daemons:
        daemon.volume_dir.mkdir()
        add_images(daemon)
    with (
        daemons[0].start() as one,
        daemons[1].start() as other,
        one.connect() as to_one,
        other.connect() as to_other,
    ):
        yield Host(one, to_one, one.address), Host(other, to_other, other.address)


def live_request(
    instance_id: str,
    to: Host,
    *,
    options: LiveMigrationOptions | None = None,
    migration_id: str = "",
) -> LiveMigrateInstanceRequest:
    """A migration of an instance to a host."""
    return LiveMigrateInstanceRequest(
        instance_id=instance_id,
        destination_uri=to.uri,
        options=options,
        migration_id=migration_id or str(uuid.uuid4()),
    )


def begun(at: Host, request: LiveMigrateInstanceRequest) -> Operation:
    """The operation of a migration, when its guest goes over."""
    operation = at.connection.migrations.LiveMigrateInstance(request, timeout=TIMEOUT_S)
    watch = operation_pb2.WatchOperationRequest(operation_id=operation.operation_id)
    stream = at.connection.operations.WatchOperation(watch, timeout=TIMEOUT_S)
    for message in stream:
        assert not message.operation.done, message.operation
        if message.operation.phase in ("disks", "memory"):
            stream.cancel()
            return operation
    raise AssertionError("the stream ended")


def ended(at: Host, request: LiveMigrateInstanceRequest) -> Operation:
    """The operation of a migration when it has ended, well or not."""
    operation = at.connection.migrations.LiveMigrateInstance(request, timeout=TIMEOUT_S)
    return finished(at.connection, operation)


def migrated(at: Host, request: LiveMigrateInstanceRequest) -> LiveMigrationResult:
    """What a migration came to, which has succeeded."""
    operation = ended(at, request)
    assert operation.state == operation_pb2.OPERATION_STATE_SUCCEEDED, operation.error
    result = LiveMigrationResult()
    operation.result.Unpack(result)
    return result


def instance_at(host: Host, instance_id: str) -> Instance | None:
    """The instance as a host knows it; None where it does not."""
    request = instance_pb2.GetInstanceRequest(instance_id=instance_id)
    try:
        return host.connection.instances.GetInstance(request, timeout=TIMEOUT_S).instance
    except grpc.RpcError as error:
        if error.code() == grpc.StatusCode.NOT_FOUND:
            return None
        raise


def progress_of(
    host: Host, instance_id: str, migration_id: str = ""
) -> Sequence[MigrationProgress]:
    """What a watcher of a migration is told, to its end."""
    request = migration_pb2.WatchMigrationRequest(
        instance_id=instance_id, migration_id=migration_id
    )
    request.interval.FromMilliseconds(100)
    stream = host.connection.migrations.WatchMigration(request, timeout=TIMEOUT_S)
    return [message.progress for message in stream]
