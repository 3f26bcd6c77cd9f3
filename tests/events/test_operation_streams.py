"""Waiting for operations and watching them, over stops and restarts of the daemon."""

import uuid
from collections.abc import Callable, Iterator

import grpc
import pytest
from virtrpc.v1 import instance_pb2, operation_pb2
from virtrpc.v1.operation_pb2 import Operation

from tests.daemon import Connection, DaemonProcess
from tests.events.controllers import TIMEOUT_S, spawn, spawn_request, wait
from tests.refusals import refusal_of, refused

SLOW_START = {"fake/spawn_instance.start": "delay:60"}
SLOW_PAUSE = {"fake/pause_instance.pause": "delay:60"}
RUNNING = operation_pb2.OPERATION_STATE_RUNNING
CANCELLED = operation_pb2.OPERATION_STATE_CANCELLED


@pytest.fixture
def daemon(make_daemon: Callable[..., DaemonProcess]) -> DaemonProcess:
    """A daemon of the test's own, with little patience at its stop."""
    return make_daemon("--grace=0.3").start()


def watched(connection: Connection, operation: Operation) -> Iterator[Operation]:
    """The operation at every change."""
    request = operation_pb2.WatchOperationRequest(operation_id=operation.operation_id)
    for response in connection.operations.WatchOperation(request, timeout=TIMEOUT_S):
        yield response.operation


def begin(connection: Connection, *, request_id: str = "") -> Operation:
    """A spawn that will not end by itself for a minute, at its last step."""
    request = spawn_request(str(uuid.uuid4()), labels=SLOW_START)
    request.request_id = request_id
    operation = connection.instances.SpawnInstance(request, timeout=TIMEOUT_S)
    for seen in watched(connection, operation):
        if seen.phase == "start":
            return seen
    raise AssertionError("it ended")


def cancel(connection: Connection, operation: Operation) -> Operation:
    request = operation_pb2.CancelOperationRequest(operation_id=operation.operation_id)
    return connection.operations.CancelOperation(request, timeout=TIMEOUT_S)


def test_watcher_sees_progress_only_forward_and_the_end_last(daemon: DaemonProcess) -> None:
    with daemon.connect() as connection:
        operation = begin(connection)
        stream = watched(connection, operation)
        seen = [next(stream)]
        cancel(connection, operation)
        seen += stream
    assert [o.done for o in seen].index(True) == len(seen) - 1
    assert seen[-1].state == CANCELLED
    assert seen[-1].error.reason == "CANCELLED"
    order = [o.state for o in seen]
    assert order == sorted(order)


def test_watch_of_an_ended_operation_is_one_message(daemon: DaemonProcess) -> None:
    with daemon.connect() as connection:
        spawn(connection)
        listed = connection.operations.ListOperations(
            operation_pb2.ListOperationsRequest(), timeout=TIMEOUT_S
        )
        (only,) = watched(connection, listed.operations[0])
    assert only.done


def test_wait_gives_the_operation_as_it_stands_when_time_is_up(daemon: DaemonProcess) -> None:
    with daemon.connect() as connection:
        operation = begin(connection)
        request = operation_pb2.WaitOperationRequest(operation_id=operation.operation_id)
        request.timeout.FromMilliseconds(50)
        stands = connection.operations.WaitOperation(request, timeout=TIMEOUT_S)
        assert (stands.done, stands.state) == (False, RUNNING)
        request.ClearField("timeout")
        stands = connection.operations.WaitOperation(request, timeout=1)
        assert not stands.done
        cancel(connection, operation)


def test_many_who_wait_are_all_answered(daemon: DaemonProcess) -> None:
    with daemon.connect() as connection:
        operation = begin(connection)
        request = operation_pb2.WaitOperationRequest(operation_id=operation.operation_id)
        waits = [connection.operations.WaitOperation.future(request, timeout=60) for _ in range(50)]
        cancel(connection, operation)
        assert {future.result().state for future in waits} == {CANCELLED}


def test_stop_ends_waits_and_watches_and_the_next_daemon_knows_the_end(
    daemon: DaemonProcess,
) -> None:
    with daemon.connect() as connection:
        operation = begin(connection, request_id="again")
        waiting = connection.operations.WaitOperation.future(
            operation_pb2.WaitOperationRequest(operation_id=operation.operation_id), timeout=60
        )
        stream = watched(connection, operation)
        next(stream)
        assert daemon.process is not None
        daemon.process.terminate()
        with refused(grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN"):
            list(stream)
        error = waiting.exception()
        assert isinstance(error, grpc.RpcError)
        assert refusal_of(error).reason == "SHUTTING_DOWN"
    assert daemon.wait() == 0, daemon.log()
    with daemon.start().connect() as connection:
        ended = wait(connection, operation)
        assert ended.error.reason == "DAEMON_RESTARTED"
        assert ended.recovered
        request = spawn_request(operation.instance_id, labels=SLOW_START)
        request.request_id = "again"
        assert connection.instances.SpawnInstance(request, timeout=TIMEOUT_S) == ended


def test_call_whose_operation_is_left_to_the_next_daemon_is_not_answered_as_done(
    daemon: DaemonProcess,
) -> None:
    with daemon.connect() as connection:
        instance_id = spawn(connection, labels=SLOW_PAUSE)
        request = instance_pb2.PauseInstanceRequest(instance_id=instance_id, request_id="again")
        pausing = connection.instances.PauseInstance.future(request, timeout=60)
        until_listed(connection, "PauseInstance")
        assert daemon.process is not None
        daemon.process.terminate()
        error = pausing.exception()
        assert isinstance(error, grpc.RpcError)
        assert error.code() == grpc.StatusCode.UNAVAILABLE
    assert daemon.wait() == 0, daemon.log()
    with daemon.start().connect() as connection:
        # The fake has forgotten the instance: the pause is run again and says so.
        with refused(grpc.StatusCode.NOT_FOUND, "INSTANCE_NOT_FOUND"):
            connection.instances.PauseInstance(request, timeout=TIMEOUT_S)
        assert len(listed(connection, "PauseInstance")) == 1


def test_wait_goes_on_at_the_daemon_that_replaces_a_killed_one(daemon: DaemonProcess) -> None:
    with daemon.connect() as connection:
        operation = begin(connection)
        request = operation_pb2.WaitOperationRequest(operation_id=operation.operation_id)
        waiting = connection.operations.WaitOperation.future(request, timeout=60)
        daemon.kill()
        error = waiting.exception()
        assert isinstance(error, grpc.RpcError)
        assert error.code() == grpc.StatusCode.UNAVAILABLE
        daemon.start()
        ended = connection.operations.WaitOperation(request, timeout=60, wait_for_ready=True)
    assert ended.state == operation_pb2.OPERATION_STATE_FAILED
    assert ended.error.reason == "DAEMON_RESTARTED"


def test_nothing_new_begins_while_the_daemon_stops(
    make_daemon: Callable[..., DaemonProcess],
) -> None:
    daemon = make_daemon("--grace=30").start()
    with daemon.connect() as connection:
        operation = begin(connection)
        assert daemon.process is not None
        daemon.process.terminate()
        with refused(grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN"):
            while True:
                wait(connection, connection.instances.SpawnInstance(
                    spawn_request(str(uuid.uuid4())), timeout=TIMEOUT_S
                ))  # fmt: skip
        cancel(connection, operation)
    assert daemon.wait() == 0, daemon.log()


def listed(connection: Connection, verb: str) -> list[Operation]:
    """All operations of a verb."""
    reply = connection.operations.ListOperations(
        operation_pb2.ListOperationsRequest(verb=verb), timeout=TIMEOUT_S
    )
    return list(reply.operations)


def until_listed(connection: Connection, verb: str) -> None:
    """Returns when the one operation of a verb is at work."""
    while not listed(connection, verb):
        pass
    for operation in watched(connection, listed(connection, verb)[0]):
        if operation.steps:
            return
