"""Operations through the API: found, listed, waited for, watched, cancelled; never forgotten."""

import time
import uuid
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from virtrpc.v1 import instance_pb2, types_pb2
from virtrpc.v1 import operation_pb2 as pb
from virtrpc.v1.operation_pb2 import Operation

from tests.conformance.conftest import Guest
from tests.conftest import MakeDaemon
from tests.daemon import Connection
from tests.instances import TIMEOUT_S, destroyed, finished, small_spec, spawned
from tests.refusals import refused

UNKNOWN = "00000000-0000-4000-8000-00000000dead"
SUCCEEDED = pb.OPERATION_STATE_SUCCEEDED
FAILED = pb.OPERATION_STATE_FAILED


def listed(connection: Connection, **fields: Any) -> list[Operation]:
    request = pb.ListOperationsRequest(**fields)
    return list(connection.operations.ListOperations(request, timeout=TIMEOUT_S).operations)


def get(connection: Connection, operation_id: str) -> Operation:
    request = pb.GetOperationRequest(operation_id=operation_id)
    return connection.operations.GetOperation(request, timeout=TIMEOUT_S)


def pause_and_unpause(connection: Connection, instance_id: str, *, request_id: str = "") -> None:
    connection.instances.PauseInstance(
        instance_pb2.PauseInstanceRequest(instance_id=instance_id, request_id=request_id),
        timeout=TIMEOUT_S,
    )
    connection.instances.UnpauseInstance(
        instance_pb2.UnpauseInstanceRequest(instance_id=instance_id), timeout=TIMEOUT_S
    )


@pytest.fixture
def busy_spawn(connection: Connection, backend: str) -> Any:
    """A spawn that is at work for long; only the fake can be made to wait."""
    spec = small_spec(backend=backend)
    spec.labels["fake/spawn_instance.start"] = "delay:60"
    request = instance_pb2.SpawnInstanceRequest(instance_id=str(uuid.uuid4()), spec=spec)
    yield connection.instances.SpawnInstance(request, timeout=TIMEOUT_S)
    destroyed(connection, request.instance_id)


def test_mutation_that_was_waited_for_is_an_operation_with_its_response(
    connection: Connection, running_guest: Guest
) -> None:
    request_id = uuid.uuid4().hex
    pause_and_unpause(connection, running_guest.instance_id, request_id=request_id)
    (found,) = [o for o in listed(connection, verb="PauseInstance") if o.request_id == request_id]
    operation = get(connection, found.operation_id)
    assert operation == get(connection, found.operation_id.upper())
    assert (operation.verb, operation.state, operation.done) == ("PauseInstance", SUCCEEDED, True)
    assert operation.instance_id == running_guest.instance_id
    assert operation.caller == "local:unix"
    assert [step.name for step in operation.steps] == ["pause"]
    assert operation.progress_percent == 100
    response = instance_pb2.PauseInstanceResponse()
    assert operation.result.Unpack(response)
    assert response.instance.power_state == types_pb2.POWER_STATE_PAUSED


def test_refused_mutation_is_a_failed_operation_that_tells_why(
    connection: Connection, running_guest: Guest
) -> None:
    off = instance_pb2.PowerOffInstanceRequest(
        instance_id=running_guest.instance_id, timeout=Duration(seconds=0)
    )
    connection.instances.PowerOffInstance(off, timeout=TIMEOUT_S)
    request_id = uuid.uuid4().hex
    pause = instance_pb2.PauseInstanceRequest(
        instance_id=running_guest.instance_id, request_id=request_id
    )
    for _ in range(2):
        with refused(grpc.StatusCode.FAILED_PRECONDITION, "WRONG_STATE") as refusal:
            connection.instances.PauseInstance(pause, timeout=TIMEOUT_S)
    (found,) = [o for o in listed(connection, verb="PauseInstance") if o.request_id == request_id]
    assert (found.state, found.done) == (FAILED, True)
    assert found.error.code == grpc.StatusCode.FAILED_PRECONDITION.value[0]
    assert (found.error.reason, found.error.message) == (refusal.reason, refusal.message)
    assert dict(found.error.metadata) == refusal.metadata
    assert not found.HasField("result")


def test_listing_is_newest_first_and_filtered(connection: Connection, running_guest: Guest) -> None:
    instance_id = running_guest.instance_id
    pause_and_unpause(connection, instance_id)
    newest = listed(connection, instance_id=instance_id.upper())[:2]
    assert [operation.verb for operation in newest] == ["UnpauseInstance", "PauseInstance"]
    assert all(not operation.steps for operation in newest)
    assert all(not operation.HasField("result") for operation in newest)
    times = [o.created_at.ToNanoseconds() for o in listed(connection)]
    assert times == sorted(times, reverse=True)
    assert {o.verb for o in listed(connection, verb="PauseInstance")} == {"PauseInstance"}
    assert {o.state for o in listed(connection, states=[SUCCEEDED])} == {SUCCEEDED}
    assert listed(connection, instance_id=str(uuid.uuid4())) == []
    assert listed(connection, verb="NoSuchVerb") == []


def test_pages_of_operations_make_up_the_whole(
    connection: Connection, running_guest: Guest
) -> None:
    instance_id = running_guest.instance_id
    for _ in range(2):
        pause_and_unpause(connection, instance_id)
    whole = [o.operation_id for o in listed(connection, instance_id=instance_id)]
    seen: list[str] = []
    request = pb.ListOperationsRequest(instance_id=instance_id)
    request.page.page_size = 3
    while True:
        response = connection.operations.ListOperations(request, timeout=TIMEOUT_S)
        seen += [operation.operation_id for operation in response.operations]
        request.page.page_token = response.next_page_token
        if not response.next_page_token:
            break
    assert seen == whole
    other = pb.ListOperationsRequest(page={"page_token": "nonsense"})  # type: ignore[arg-type]
    with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_PAGE_TOKEN"):
        connection.operations.ListOperations(other, timeout=TIMEOUT_S)


@pytest.mark.parametrize("verb", ["GetOperation", "WaitOperation", "CancelOperation"])
def test_unknown_operation_is_not_found(connection: Connection, verb: str) -> None:
    request = getattr(pb, f"{verb}Request")(operation_id=UNKNOWN)
    with refused(grpc.StatusCode.NOT_FOUND, "OPERATION_NOT_FOUND") as refusal:
        getattr(connection.operations, verb)(request, timeout=TIMEOUT_S)
    assert refusal.metadata == {"operation_id": UNKNOWN}


def test_watch_of_an_unknown_operation_is_not_found(connection: Connection) -> None:
    request = pb.WatchOperationRequest(operation_id=UNKNOWN)
    with refused(grpc.StatusCode.NOT_FOUND, "OPERATION_NOT_FOUND"):
        list(connection.operations.WatchOperation(request, timeout=TIMEOUT_S))


def test_wait_and_watch_of_an_ended_operation_answer_at_once(
    connection: Connection, guest: Guest
) -> None:
    (spawn,) = listed(connection, instance_id=guest.instance_id, verb="SpawnInstance")[-1:]
    ended = get(connection, spawn.operation_id)
    wait = pb.WaitOperationRequest(operation_id=spawn.operation_id)
    assert connection.operations.WaitOperation(wait, timeout=TIMEOUT_S) == ended
    watch = pb.WatchOperationRequest(operation_id=spawn.operation_id)
    (response,) = connection.operations.WatchOperation(watch, timeout=TIMEOUT_S)
    assert response.operation == ended


def test_cancel_of_an_ended_operation_changes_nothing(connection: Connection, guest: Guest) -> None:
    (spawn,) = listed(connection, instance_id=guest.instance_id, verb="SpawnInstance")[-1:]
    ended = get(connection, spawn.operation_id)
    cancel = pb.CancelOperationRequest(operation_id=spawn.operation_id)
    assert connection.operations.CancelOperation(cancel, timeout=TIMEOUT_S) == ended
    assert get(connection, spawn.operation_id) == ended


@pytest.mark.parametrize("backend", ["fake"], indirect=True)
class TestAtWork:
    """What can only be seen of an operation that takes its time."""

    def test_wait_returns_it_as_it_stands_when_its_time_is_over(
        self, connection: Connection, busy_spawn: Operation
    ) -> None:
        request = pb.WaitOperationRequest(operation_id=busy_spawn.operation_id)
        request.timeout.FromMilliseconds(200)
        started = time.monotonic()
        operation = connection.operations.WaitOperation(request, timeout=TIMEOUT_S)
        assert not operation.done
        assert 0.2 <= time.monotonic() - started < 10

    def test_wait_returns_before_the_caller_s_own_deadline(
        self, connection: Connection, busy_spawn: Operation
    ) -> None:
        request = pb.WaitOperationRequest(operation_id=busy_spawn.operation_id)
        assert not connection.operations.WaitOperation(request, timeout=2).done

    def test_another_mutation_is_refused_and_told_which_one_runs(
        self, connection: Connection, busy_spawn: Operation
    ) -> None:
        pause = instance_pb2.PauseInstanceRequest(instance_id=busy_spawn.instance_id)
        with refused(grpc.StatusCode.ABORTED, "INSTANCE_BUSY") as refusal:
            connection.instances.PauseInstance(pause, timeout=TIMEOUT_S)
        assert refusal.metadata["operation_id"] == busy_spawn.operation_id
        assert refusal.metadata["verb"] == "SpawnInstance"
        assert refusal.retry_delay_s
        assert len(listed(connection, instance_id=busy_spawn.instance_id)) == 1

    def test_reads_do_not_wait_for_it_and_tell_that_it_runs(
        self, connection: Connection, busy_spawn: Operation
    ) -> None:
        watch = pb.WatchOperationRequest(operation_id=busy_spawn.operation_id)
        stream = connection.operations.WatchOperation(watch, timeout=TIMEOUT_S)
        for response in stream:
            if any(step.name == "start" for step in response.operation.steps):
                break
        stream.cancel()
        request = instance_pb2.GetInstanceRequest(instance_id=busy_spawn.instance_id)
        instance = connection.instances.GetInstance(request, timeout=5).instance
        assert instance.operation_id == busy_spawn.operation_id
        assert instance.power_state == types_pb2.POWER_STATE_SHUTDOWN

    def test_cancel_ends_it_and_everyone_who_watches_sees_that(
        self, connection: Connection, busy_spawn: Operation
    ) -> None:
        watch = pb.WatchOperationRequest(operation_id=busy_spawn.operation_id)
        stream = connection.operations.WatchOperation(watch, timeout=TIMEOUT_S)
        assert next(stream).operation.operation_id == busy_spawn.operation_id
        cancel = pb.CancelOperationRequest(operation_id=busy_spawn.operation_id)
        assert connection.operations.CancelOperation(cancel, timeout=TIMEOUT_S).cancel_requested
        *_, last = stream
        assert last.operation.state == pb.OPERATION_STATE_CANCELLED
        assert last.operation == finished(connection, busy_spawn)

    def test_caller_that_goes_away_cancels_nothing(
        self, connection: Connection, backend: str
    ) -> None:
        spec = small_spec(backend=backend)
        spec.labels["fake/pause_instance.pause"] = "delay:1"
        with spawned(connection, spec) as instance_id:
            pause = instance_pb2.PauseInstanceRequest(instance_id=instance_id, request_id="slow")
            with refused(grpc.StatusCode.DEADLINE_EXCEEDED):
                connection.instances.PauseInstance(pause, timeout=0.2)
            response = connection.instances.PauseInstance(pause, timeout=TIMEOUT_S)
            assert response.instance.power_state == types_pb2.POWER_STATE_PAUSED
            assert len(listed(connection, instance_id=instance_id, verb="PauseInstance")) == 1

    def test_destroy_cannot_be_cancelled(self, connection: Connection, backend: str) -> None:
        spec = small_spec(backend=backend)
        spec.labels["fake/destroy_instance.stop"] = "delay:0.5"
        with spawned(connection, spec) as instance_id:
            destroy = instance_pb2.DestroyInstanceRequest(
                instance_id=instance_id, destroy_disks=True
            )
            future = connection.instances.DestroyInstance.future(destroy, timeout=TIMEOUT_S)
            operation = self._first(connection, instance_id, "DestroyInstance")
            cancel = pb.CancelOperationRequest(operation_id=operation.operation_id)
            with refused(grpc.StatusCode.FAILED_PRECONDITION, "NOT_CANCELLABLE"):
                connection.operations.CancelOperation(cancel, timeout=TIMEOUT_S)
            assert not future.result(timeout=TIMEOUT_S).already_gone

    def _first(self, connection: Connection, instance_id: str, verb: str) -> Operation:
        """The operation of a verb as soon as there is one."""
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            found = listed(connection, instance_id=instance_id, verb=verb)
            if found:
                return found[0]
        raise AssertionError(f"no {verb}")


def test_operations_outlive_the_daemon(make_daemon: MakeDaemon, backend: str) -> None:
    daemon = make_daemon(backend=backend).start()
    with daemon.connect() as connection:
        spec = small_spec(backend=backend)
        request = instance_pb2.SpawnInstanceRequest(
            instance_id=str(uuid.uuid4()), spec=spec, request_id="kept"
        )
        spawn = finished(connection, connection.instances.SpawnInstance(request))
        destroyed(connection, request.instance_id)
        before = [get(connection, o.operation_id) for o in listed(connection)]
    daemon.kill()
    daemon.start()
    with daemon.connect() as connection:
        after = [get(connection, o.operation_id) for o in listed(connection)]
        assert after == before
        assert connection.instances.SpawnInstance(request, timeout=TIMEOUT_S) == spawn
