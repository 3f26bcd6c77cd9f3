"""DestroyInstance and what comes after it: nothing of an instance is left."""

import uuid

import grpc
import pytest
from virtrpc.v1 import console_pb2, operation_pb2
from virtrpc.v1 import instance_pb2 as pb

from tests.conformance.conftest import Guest, belongings, state_of
from tests.daemon import Connection, DaemonProcess
from tests.events_seen import cursor_now
from tests.instances import TIMEOUT_S, destroyed, finished, small_spec, spawned, succeeded
from tests.refusals import refused

UNKNOWN = "00000000-0000-4000-8000-00000000dead"
CANCELLED = operation_pb2.OPERATION_STATE_CANCELLED
SUCCEEDED = operation_pb2.OPERATION_STATE_SUCCEEDED


def destroy(
    connection: Connection, instance_id: str, *, destroy_disks: bool = True, request_id: str = ""
) -> pb.DestroyInstanceResponse:
    request = pb.DestroyInstanceRequest(
        instance_id=instance_id, destroy_disks=destroy_disks, request_id=request_id
    )
    return connection.instances.DestroyInstance(request, timeout=TIMEOUT_S)


def on_disk(connection: Connection, instance_id: str) -> bool:
    request = pb.CheckInstanceOnDiskRequest(instance_id=instance_id)
    return connection.instances.CheckInstanceOnDisk(request, timeout=TIMEOUT_S).on_disk


def assert_gone(connection: Connection, instance_id: str) -> None:
    for fresh in (False, True):
        with refused(grpc.StatusCode.NOT_FOUND, "INSTANCE_NOT_FOUND"):
            connection.instances.GetInstance(
                pb.GetInstanceRequest(instance_id=instance_id, fresh=fresh), timeout=TIMEOUT_S
            )


def test_destroyed_instance_is_gone_with_its_files(
    connection: Connection, daemon: DaemonProcess, backend: str
) -> None:
    before = belongings(daemon, connection)
    with spawned(connection, small_spec(backend=backend, boot="disk")) as instance_id:
        assert on_disk(connection, instance_id)
        assert belongings(daemon, connection).listed - before.listed == {instance_id}
        assert not destroy(connection, instance_id).already_gone
        assert_gone(connection, instance_id)
        assert not on_disk(connection, instance_id)
        assert belongings(daemon, connection) == before
        with refused(grpc.StatusCode.NOT_FOUND, "INSTANCE_NOT_FOUND"):
            connection.consoles.GetConsoleOutput(
                console_pb2.GetConsoleOutputRequest(instance_id=instance_id), timeout=TIMEOUT_S
            )


def test_destroy_of_an_unknown_instance_succeeds_and_warns_in_the_log(
    connection: Connection, daemon: DaemonProcess
) -> None:
    instance_id = str(uuid.uuid4())
    assert destroy(connection, instance_id).already_gone
    warnings = [line for line in daemon.log().splitlines() if "warning" in line]
    assert any(instance_id in line for line in warnings)


def test_destroy_may_be_repeated(connection: Connection, backend: str) -> None:
    with spawned(connection, small_spec(backend=backend)) as instance_id:
        assert not destroy(connection, instance_id, request_id="once").already_gone
        assert not destroy(connection, instance_id, request_id="once").already_gone
        assert destroy(connection, instance_id).already_gone


def test_destroy_with_validate_only_changes_nothing(connection: Connection, guest: Guest) -> None:
    request = pb.DestroyInstanceRequest(
        instance_id=guest.instance_id, destroy_disks=True, validate_only=True
    )
    cursor = cursor_now(connection)
    connection.instances.DestroyInstance(request, timeout=TIMEOUT_S)
    assert state_of(connection, guest.instance_id).instance_id == guest.instance_id
    assert cursor_now(connection) == cursor


def test_files_that_were_kept_are_cleaned_up_later(connection: Connection, backend: str) -> None:
    with spawned(connection, small_spec(backend=backend, boot="disk")) as instance_id:
        destroy(connection, instance_id, destroy_disks=False)
        assert_gone(connection, instance_id)
        assert on_disk(connection, instance_id)
        without_disks = pb.CleanupInstanceRequest(instance_id=instance_id, destroy_vifs=True)
        connection.instances.CleanupInstance(without_disks, timeout=TIMEOUT_S)
        assert on_disk(connection, instance_id)
        cleanup = pb.CleanupInstanceRequest(instance_id=instance_id, destroy_disks=True)
        assert connection.instances.CleanupInstance(cleanup, timeout=TIMEOUT_S).removed
        assert not on_disk(connection, instance_id)
        assert not connection.instances.CleanupInstance(cleanup, timeout=TIMEOUT_S).removed


def test_files_that_were_kept_are_deleted_later(connection: Connection, backend: str) -> None:
    with spawned(connection, small_spec(backend=backend)) as instance_id:
        destroy(connection, instance_id, destroy_disks=False)
        delete = pb.DeleteInstanceFilesRequest(instance_id=instance_id)
        for _ in range(2):
            assert connection.instances.DeleteInstanceFiles(delete, timeout=TIMEOUT_S).gone
            assert not on_disk(connection, instance_id)


def test_files_that_were_kept_are_no_hindrance_to_a_new_instance_of_the_id(
    connection: Connection, backend: str
) -> None:
    spec = small_spec(backend=backend)
    with spawned(connection, spec) as instance_id:
        destroy(connection, instance_id, destroy_disks=False)
        request = pb.SpawnInstanceRequest(instance_id=instance_id, spec=spec)
        succeeded(connection, connection.instances.SpawnInstance(request, timeout=TIMEOUT_S))


@pytest.mark.parametrize("validate_only", [False, True])
def test_running_instance_is_not_cleaned_up(
    connection: Connection, running_guest: Guest, validate_only: bool
) -> None:
    instance_id = running_guest.instance_id
    with refused(grpc.StatusCode.FAILED_PRECONDITION, "WRONG_STATE"):
        connection.instances.CleanupInstance(
            pb.CleanupInstanceRequest(
                instance_id=instance_id, destroy_disks=True, validate_only=validate_only
            ),
            timeout=TIMEOUT_S,
        )
    with refused(grpc.StatusCode.FAILED_PRECONDITION, "WRONG_STATE"):
        connection.instances.DeleteInstanceFiles(
            pb.DeleteInstanceFilesRequest(instance_id=instance_id, validate_only=validate_only),
            timeout=TIMEOUT_S,
        )
    assert on_disk(connection, instance_id)


def test_unknown_instance_has_no_files_and_nothing_to_clean_up(connection: Connection) -> None:
    assert not on_disk(connection, UNKNOWN)
    cleanup = pb.CleanupInstanceRequest(instance_id=UNKNOWN, destroy_disks=True)
    assert not connection.instances.CleanupInstance(cleanup, timeout=TIMEOUT_S).removed
    delete = pb.DeleteInstanceFilesRequest(instance_id=UNKNOWN)
    assert connection.instances.DeleteInstanceFiles(delete, timeout=TIMEOUT_S).gone


@pytest.mark.parametrize("step", ["files", "define", "start"])
def test_destroy_during_a_spawn_takes_its_place_and_leaves_nothing(
    connection: Connection, daemon: DaemonProcess, backend: str, step: str
) -> None:
    """On the fake the spawn waits at a step; elsewhere it is met wherever it is."""
    before = belongings(daemon, connection)
    spec = small_spec(backend=backend, boot="disk")
    spec.labels[f"fake/spawn_instance.{step}"] = "delay:60"
    request = pb.SpawnInstanceRequest(instance_id=str(uuid.uuid4()), spec=spec)
    spawn = connection.instances.SpawnInstance(request, timeout=TIMEOUT_S)
    wait_for_step(connection, spawn.operation_id, step)
    destroy(connection, request.instance_id)
    ended = finished(connection, spawn)
    assert ended.state in ((CANCELLED,) if backend == "fake" else (CANCELLED, SUCCEEDED))
    assert_gone(connection, request.instance_id)
    assert belongings(daemon, connection) == before


def test_cancelled_spawn_leaves_nothing(
    connection: Connection, daemon: DaemonProcess, backend: str
) -> None:
    before = belongings(daemon, connection)
    spec = small_spec(backend=backend, boot="disk")
    spec.labels["fake/spawn_instance.define"] = "delay:60"
    request = pb.SpawnInstanceRequest(instance_id=str(uuid.uuid4()), spec=spec)
    spawn = connection.instances.SpawnInstance(request, timeout=TIMEOUT_S)
    cancel = operation_pb2.CancelOperationRequest(operation_id=spawn.operation_id)
    assert connection.operations.CancelOperation(cancel, timeout=TIMEOUT_S).cancel_requested
    ended = finished(connection, spawn)
    # Cancelled before its first step: the point of no return is far away.
    assert (ended.state, ended.error.reason) == (CANCELLED, "CANCELLED")
    assert ended.error.code == grpc.StatusCode.CANCELLED.value[0]
    assert_gone(connection, request.instance_id)
    assert belongings(daemon, connection) == before
    again = connection.operations.CancelOperation(cancel, timeout=TIMEOUT_S)
    assert again == ended


def test_id_can_be_used_again_after_a_cancelled_spawn(connection: Connection, backend: str) -> None:
    spec = small_spec(backend=backend)
    spec.labels["fake/spawn_instance.define"] = "delay:60"
    request = pb.SpawnInstanceRequest(instance_id=str(uuid.uuid4()), spec=spec)
    spawn = connection.instances.SpawnInstance(request, timeout=TIMEOUT_S)
    cancel = operation_pb2.CancelOperationRequest(operation_id=spawn.operation_id)
    connection.operations.CancelOperation(cancel, timeout=TIMEOUT_S)
    finished(connection, spawn)
    del request.spec.labels["fake/spawn_instance.define"]
    try:
        succeeded(connection, connection.instances.SpawnInstance(request, timeout=TIMEOUT_S))
    finally:
        destroyed(connection, request.instance_id)


def wait_for_step(connection: Connection, operation_id: str, step: str) -> None:
    """Returns when the operation has begun a step, or has ended."""
    watch = operation_pb2.WatchOperationRequest(operation_id=operation_id)
    stream = connection.operations.WatchOperation(watch, timeout=TIMEOUT_S)
    for response in stream:
        if any(begun.name == step for begun in response.operation.steps):
            stream.cancel()
            return
