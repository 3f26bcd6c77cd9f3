"""SIGTERM: everybody is told where to go on, and the daemon ends within its grace."""

import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from virtrpc.v1 import console_pb2, event_pb2, operation_pb2
from virtrpc.v1 import instance_pb2 as pb

from tests.conftest import MakeDaemon
from tests.daemon import Connection, DaemonProcess
from tests.events_seen import cursor_now, events_after
from tests.instances import TIMEOUT_S, finished, small_spec, succeeded
from tests.refusals import refusal_of, refused

GRACE_S = 1.0
# To close streams, the backend and the files, on a slow machine.
CLOSING_S = 15.0
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


@dataclass(frozen=True)
class Busy:
    """A daemon with an instance that runs and one whose spawn takes a minute."""

    daemon: DaemonProcess
    connection: Connection
    running: str
    spawn: operation_pb2.Operation


@pytest.fixture
def busy(make_daemon: MakeDaemon) -> Iterator[Busy]:
    daemon = make_daemon(f"--grace={GRACE_S}").start()
    with daemon.connect() as connection:
        running = str(uuid.uuid4())
        spec = small_spec(backend="fake")
        spec.labels["fake/pause_instance"] = "delay:60"
        request = pb.SpawnInstanceRequest(instance_id=running, spec=spec)
        succeeded(connection, connection.instances.SpawnInstance(request, timeout=TIMEOUT_S))
        slow = small_spec(backend="fake")
        slow.labels["fake/spawn_instance.start"] = "delay:60"
        cursor = cursor_now(connection)
        request = pb.SpawnInstanceRequest(
            instance_id=str(uuid.uuid4()), spec=slow, request_id="slow"
        )
        spawn = connection.instances.SpawnInstance(request, timeout=TIMEOUT_S)
        events_after(
            connection,
            cursor,
            until=lambda event: (
                event.type == event_pb2.EVENT_TYPE_CREATED
                and event.instance_id == request.instance_id
            ),
        )
        yield Busy(daemon, connection, running, spawn)


def terminate(busy: Busy) -> None:
    assert busy.daemon.process is not None
    busy.daemon.process.terminate()


def test_idle_daemon_stops_at_once(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon("--grace=3600").start()
    started = time.monotonic()
    assert daemon.stop() == 0
    assert time.monotonic() - started < CLOSING_S
    assert "stopped" in daemon.log()


def test_daemon_with_an_operation_at_work_ends_within_its_grace(busy: Busy) -> None:
    started = time.monotonic()
    assert busy.daemon.stop() == 0
    assert GRACE_S <= time.monotonic() - started < GRACE_S + CLOSING_S


def test_operation_that_ends_within_the_grace_is_waited_for(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon("--grace=30").start()
    with daemon.connect() as connection, ThreadPoolExecutor(1) as pool:
        spec = small_spec(backend="fake")
        spec.labels["fake/spawn_instance.start"] = "delay:0.5"
        request = pb.SpawnInstanceRequest(instance_id=str(uuid.uuid4()), spec=spec)
        operation = connection.instances.SpawnInstance(request, timeout=TIMEOUT_S)
        stopped = pool.submit(daemon.stop)
        assert stopped.result(timeout=TIMEOUT_S) == 0
    daemon.start()
    with daemon.connect() as connection:
        ended = finished(connection, operation)
        assert ended.state == operation_pb2.OPERATION_STATE_SUCCEEDED
        assert not ended.recovered


def ended_stream(stream: Any) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as ended:
        for _ in stream:
            pass
    return ended.value


def test_streams_end_unavailable_with_where_to_go_on(busy: Busy) -> None:
    connection = busy.connection
    events = connection.events.WatchEvents(event_pb2.WatchEventsRequest(snapshot=True))
    next(events)
    output = console_pb2.StreamConsoleOutputRequest(instance_id=busy.running, offset=0, follow=True)
    console = connection.consoles.StreamConsoleOutput(output)
    end = next(console).heartbeat.end_offset
    watch = operation_pb2.WatchOperationRequest(operation_id=busy.spawn.operation_id)
    operation = connection.operations.WatchOperation(watch)
    next(operation)
    terminate(busy)
    for stream, metadata in (
        (events, {"epoch", "sequence"}),
        (console, {"next_offset"}),
        (operation, {"operation_id"}),
    ):
        refusal = refusal_of(ended_stream(stream))
        assert (refusal.code, refusal.reason) == (UNAVAILABLE, "SHUTTING_DOWN")
        assert set(refusal.metadata) == metadata
        assert refusal.retry_delay_s
        if "next_offset" in metadata:
            assert refusal.metadata["next_offset"] == str(end)
    assert busy.daemon.wait() == 0


def test_caller_that_waits_for_a_mutation_is_told_that_it_is_not_done(busy: Busy) -> None:
    pause = pb.PauseInstanceRequest(instance_id=busy.running, request_id="pause")
    waiting = busy.connection.instances.PauseInstance.future(pause, timeout=TIMEOUT_S)
    wait_until_accepted(busy.connection, "PauseInstance")
    terminate(busy)
    with refused(UNAVAILABLE) as refusal:
        waiting.result(timeout=TIMEOUT_S)
    assert refusal.metadata["operation_id"]
    assert busy.daemon.wait() == 0


def wait_until_accepted(connection: Connection, verb: str) -> None:
    """Returns when there is an operation of a verb."""
    begin = event_pb2.EventCursor(epoch=cursor_now(connection).epoch, sequence=0)
    events_after(connection, begin, until=lambda event: event.operation.verb == verb)


def test_wait_is_told_that_the_operation_goes_on_later(busy: Busy) -> None:
    request = operation_pb2.WaitOperationRequest(operation_id=busy.spawn.operation_id)
    waiting = busy.connection.operations.WaitOperation.future(request, timeout=TIMEOUT_S)
    terminate(busy)
    with refused(UNAVAILABLE, "SHUTTING_DOWN") as refusal:
        waiting.result(timeout=TIMEOUT_S)
    assert refusal.metadata["operation_id"] == busy.spawn.operation_id


def test_health_says_not_serving_before_the_end(busy: Busy) -> None:
    stub = health_pb2_grpc.HealthStub(busy.connection.channel)
    watch = stub.Watch(health_pb2.HealthCheckRequest(service=""), timeout=TIMEOUT_S)
    assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
    terminate(busy)
    assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
    pause = pb.UnpauseInstanceRequest(instance_id=busy.running)
    with refused(UNAVAILABLE):
        busy.connection.instances.UnpauseInstance(pause, timeout=TIMEOUT_S)
    assert refusal_of(ended_stream(watch)).reason == "SHUTTING_DOWN"
    assert busy.daemon.wait() == 0


def test_operation_that_was_interrupted_is_rolled_back_at_the_next_start(busy: Busy) -> None:
    assert busy.daemon.stop() == 0
    busy.daemon.start()
    with busy.daemon.connect() as connection:
        ended = finished(connection, busy.spawn)
        assert ended.state == operation_pb2.OPERATION_STATE_FAILED
        assert ended.error.reason == "DAEMON_RESTARTED"
        assert ended.recovered
        with refused(grpc.StatusCode.NOT_FOUND):
            get = pb.GetInstanceRequest(instance_id=busy.spawn.instance_id)
            connection.instances.GetInstance(get, timeout=TIMEOUT_S)


def test_second_signal_changes_nothing(busy: Busy) -> None:
    terminate(busy)
    terminate(busy)
    assert busy.daemon.wait() == 0
