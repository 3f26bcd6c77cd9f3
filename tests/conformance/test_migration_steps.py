"""The steps of a live migration, one by one, as a controller may take them; fakes on both sides."""

import socket
import uuid
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from virtrpc.v1 import instance_pb2, types_pb2
from virtrpc.v1 import migration_pb2 as pb
from virtrpc.v1.migration_pb2 import MigrationPhase

from tests.instances import destroyed, small_spec, spawned
from tests.migrations import Host, ended, instance_at, live_request, migrated, progress_of
from tests.refusals import refused

TIMEOUT_S = 20.0


@pytest.fixture
def guest(hosts: tuple[Host, Host]) -> Iterator[str]:
    """The id of an instance on the first host."""
    with spawned(hosts[0].connection, small_spec(backend="fake")) as instance_id:
        yield instance_id
        destroyed(hosts[1].connection, instance_id)


def prepared(
    hosts: tuple[Host, Host], instance_id: str, *, source: str = "elsewhere"
) -> pb.PrepareDestinationRequest:
    """What prepared the second host for an instance of the first, which is said to be `source`."""
    here, there = hosts
    instance = instance_at(here, instance_id)
    assert instance is not None
    ids: dict[str, Any] = {"instance_id": instance_id, "migration_id": str(uuid.uuid4())}
    data = pb.MigrationData(
        kind=pb.MIGRATION_KIND_LIVE,
        destination_uri=there.uri,
        source=pb.MigrationSource(host_name=source),
        storage=pb.MIGRATION_STORAGE_COPY,
        **ids,
    )
    request = pb.PrepareDestinationRequest(data=data, spec=instance.spec, **ids)
    there.connection.migrations.PrepareDestination(request, timeout=TIMEOUT_S)
    return request


def test_controller_takes_the_steps_itself(hosts: tuple[Host, Host], guest: str) -> None:
    """As the comment at MigrationService draws them."""
    here, there = hosts
    migration_id = str(uuid.uuid4())
    ids: dict[str, Any] = {"instance_id": guest, "migration_id": migration_id}
    instance = instance_at(here, guest)
    assert instance is not None
    source = pb.MigrationSource(instance_name=instance.name, flavor=instance.spec.flavor)
    checked = there.connection.migrations.CheckDestination(
        pb.CheckDestinationRequest(source=source, **ids), timeout=TIMEOUT_S
    )
    assert not checked.blockers
    from_here = here.connection.migrations.CheckSource(
        pb.CheckSourceRequest(destination_uri=there.uri, check=checked.check, **ids),
        timeout=TIMEOUT_S,
    )
    assert not from_here.blockers
    prepared = there.connection.migrations.PrepareDestination(
        pb.PrepareDestinationRequest(data=from_here.data, spec=instance.spec, **ids),
        timeout=TIMEOUT_S,
    )
    assert prepared.data.prepared
    with refused(grpc.StatusCode.FAILED_PRECONDITION, "NOT_SWITCHED"):
        there.connection.migrations.CompleteDestination(
            pb.CompleteDestinationRequest(data=prepared.data, **ids), timeout=TIMEOUT_S
        )
    request = live_request(guest, there, migration_id=migration_id)
    request.data.CopyFrom(prepared.data)
    result = migrated(here, request)
    left = here.connection.migrations.CompleteSource(
        pb.CompleteSourceRequest(data=result.data, **ids), timeout=TIMEOUT_S
    )
    with refused(grpc.StatusCode.FAILED_PRECONDITION, "SWITCHED"):
        there.connection.migrations.RollbackDestination(
            pb.RollbackDestinationRequest(**ids), timeout=TIMEOUT_S
        )
    arrived = there.connection.migrations.CompleteDestination(
        pb.CompleteDestinationRequest(data=left.data, **ids), timeout=TIMEOUT_S
    )
    assert arrived.instance.power_state == types_pb2.POWER_STATE_RUNNING
    clean = there.connection.migrations.CleanupDestinationCheck(
        pb.CleanupDestinationCheckRequest(**ids), timeout=TIMEOUT_S
    )
    assert clean.already_clean


def test_rollback_forgets_what_was_prepared(hosts: tuple[Host, Host], guest: str) -> None:
    _, there = hosts
    first = prepared(hosts, guest)
    other = pb.PrepareDestinationRequest()
    other.CopyFrom(first)
    other.migration_id = other.data.migration_id = str(uuid.uuid4())
    other.data.source.host_name = "another"
    with refused(grpc.StatusCode.ALREADY_EXISTS, "INSTANCE_EXISTS"):
        there.connection.migrations.PrepareDestination(other, timeout=TIMEOUT_S)
    rollback = pb.RollbackDestinationRequest(instance_id=guest, migration_id=first.migration_id)
    told = [
        there.connection.migrations.RollbackDestination(rollback, timeout=TIMEOUT_S).already_gone
        for _ in range(2)
    ]
    assert told == [False, True]
    assert not (there.daemon.state_dir / "fake" / guest).exists()


def test_preparation_that_its_source_has_given_up_is_not_in_the_way(
    hosts: tuple[Host, Host], guest: str
) -> None:
    """As after a destination that was away when it should have rolled back."""
    here, there = hosts
    given_up = prepared(hosts, guest, source=socket.gethostname())
    migrated(here, live_request(guest, there))
    (last,) = progress_of(there, guest, given_up.migration_id)
    assert last.phase == MigrationPhase.MIGRATION_PHASE_CANCELLED


def test_destroy_ends_a_preparation(hosts: tuple[Host, Host], guest: str) -> None:
    here, there = hosts
    prepared(hosts, guest)
    assert ended(here, live_request(guest, there)).error.reason == "INSTANCE_EXISTS"
    destroyed(there.connection, guest)
    migrated(here, live_request(guest, there))


def test_expected_instance_is_nobody_elses(hosts: tuple[Host, Host], guest: str) -> None:
    _, there = hosts
    request = prepared(hosts, guest)
    spawn = instance_pb2.SpawnInstanceRequest(
        instance_id=guest, spec=request.spec, validate_only=True
    )
    with refused(grpc.StatusCode.FAILED_PRECONDITION, "ARRIVING"):
        there.connection.instances.SpawnInstance(spawn, timeout=TIMEOUT_S)
    rollback = pb.RollbackDestinationRequest(
        instance_id=guest, migration_id=request.migration_id, source_has_guest=True
    )
    there.connection.migrations.RollbackDestination(rollback, timeout=TIMEOUT_S)
    there.connection.instances.SpawnInstance(spawn, timeout=TIMEOUT_S)
