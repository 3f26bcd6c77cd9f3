"""How much is taken on at a time; who is turned away is told when to come again."""

import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from statistics import quantiles

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from virtrpc.v1 import event_pb2, host_pb2, operation_pb2
from virtrpc.v1 import instance_pb2 as pb
from virtrpc.v1.options_pb2 import VerbKind

from service.admission import DEFAULT_LIMITS, Admission, Queue
from service.errors import OverloadedError
from service.operations.runner import MAX_LIVE_OPERATIONS
from service.verbs import all_verbs
from tests.conftest import MakeDaemon
from tests.daemon import Connection
from tests.instances import TIMEOUT_S, destroyed, small_spec
from tests.refusals import refused
from tests.soak.invariants import Usage

OK = grpc.StatusCode.OK
HEALTH_S = 2.0
VERBS = {verb.name: verb for verb in all_verbs().values()}


def test_every_kind_of_verb_has_its_limit() -> None:
    kinds = {name.removeprefix("VERB_KIND_") for name in VerbKind.keys()}  # noqa: SIM118
    assert set(DEFAULT_LIMITS) == kinds - {"UNSPECIFIED"}


def test_beyond_the_limit_a_call_is_turned_away_and_others_are_not() -> None:
    admission = Admission({"READ": 1, "STREAM": 1})
    with admission.enter(VERBS["GetInstance"]):
        with pytest.raises(OverloadedError) as caught, admission.enter(VERBS["ListInstances"]):
            pass
        assert caught.value.metadata == {"class": "READ", "limit": "1", "queue_position": "1"}
        with admission.enter(VERBS["WatchEvents"]):
            pass
    with admission.enter(VERBS["ListInstances"]):
        pass


def test_those_turned_away_are_told_their_place_and_come_again_one_after_the_other() -> None:
    now = 0.0
    queue = Queue("READ", limit=10, clock=lambda: now)
    told = [queue.turned_away("full") for _ in range(25)]
    assert [int(error.metadata["queue_position"]) for error in told] == list(range(1, 26))
    assert [error.retry_after_s for error in told] == [1] * 10 + [2] * 10 + [3] * 5
    now = 1.0  # ten of them may have come again
    assert queue.turned_away("full").metadata["queue_position"] == "16"
    now = 60.0
    assert queue.turned_away("full").metadata["queue_position"] == "1"


def test_nobody_is_told_to_stay_away_for_long() -> None:
    queue = Queue("READ", limit=1, clock=lambda: 0.0)
    assert max(queue.turned_away("full").retry_after_s for _ in range(1000)) == 30


def test_call_that_fails_gives_its_place_back() -> None:
    admission = Admission({"READ": 1})
    for _ in range(3):
        with pytest.raises(ValueError, match="failed"), admission.enter(VERBS["GetInstance"]):
            raise ValueError("failed")


@pytest.fixture
def connection(make_daemon: MakeDaemon) -> Iterator[Connection]:
    with make_daemon("--grace=0.1").start().connect() as connected:
        yield connected


def slow_spawn() -> pb.SpawnInstanceRequest:
    spec = small_spec(backend="fake")
    spec.labels["fake/spawn_instance"] = "delay:60"
    return pb.SpawnInstanceRequest(instance_id=str(uuid.uuid4()), spec=spec)


def test_too_many_operations_at_a_time_are_refused_before_anything_changes(
    connection: Connection,
) -> None:
    requests = [slow_spawn() for _ in range(MAX_LIVE_OPERATIONS)]
    for request in requests:
        connection.instances.SpawnInstance(request, timeout=TIMEOUT_S)
    one_more = slow_spawn()
    with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED") as refusal:
        connection.instances.SpawnInstance(one_more, timeout=TIMEOUT_S)
    assert refusal.metadata["limit"] == str(MAX_LIVE_OPERATIONS)
    assert refusal.metadata["queue_position"] == "1"
    assert refusal.retry_delay_s == 1
    with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED") as refusal:
        connection.instances.SpawnInstance(one_more, timeout=TIMEOUT_S)
    assert refusal.metadata["queue_position"] == "2"
    listing = operation_pb2.ListOperationsRequest(instance_id=one_more.instance_id)
    assert not connection.operations.ListOperations(listing, timeout=TIMEOUT_S).operations
    # Reads, and what frees the host again, are not held up by it.
    connection.hosts.GetHost(host_pb2.GetHostRequest(), timeout=TIMEOUT_S)
    cancelled = cancel_first(connection, requests[-1].instance_id)
    assert cancelled.state == operation_pb2.OPERATION_STATE_CANCELLED
    connection.instances.SpawnInstance(one_more, timeout=TIMEOUT_S)


def cancel_first(connection: Connection, instance_id: str) -> operation_pb2.Operation:
    """Cancels the operation of an instance, and waits for its end."""
    listing = operation_pb2.ListOperationsRequest(instance_id=instance_id)
    (operation,) = connection.operations.ListOperations(listing, timeout=TIMEOUT_S).operations
    cancel = operation_pb2.CancelOperationRequest(operation_id=operation.operation_id)
    connection.operations.CancelOperation(cancel, timeout=TIMEOUT_S)
    wait = operation_pb2.WaitOperationRequest(operation_id=operation.operation_id)
    return connection.operations.WaitOperation(wait, timeout=TIMEOUT_S)


def test_destroy_of_an_instance_is_admitted_when_all_workers_are_at_work(
    connection: Connection,
) -> None:
    """Spawns that wait for a worker are pre-empted like those that have one."""
    requests = [slow_spawn() for _ in range(100)]
    for request in requests:
        connection.instances.SpawnInstance(request, timeout=TIMEOUT_S)
    for request in (requests[0], requests[-1]):
        destroyed(connection, request.instance_id)


def test_thousands_of_calls_at_once_are_answered_or_told_to_come_again(
    connection: Connection,
) -> None:
    """gRPC by itself would refuse some of more than a thousand, as CANCELLED."""
    request = pb.ListInstancesRequest()
    calls = [
        connection.instances.ListInstances.future(request, timeout=TIMEOUT_S) for _ in range(5000)
    ]
    codes = {call.code() for call in calls}
    assert codes <= {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert grpc.StatusCode.OK in codes


def test_health_is_prompt_and_memory_flat_under_a_flood(make_daemon: MakeDaemon) -> None:
    """Five hundred calls at a time, again and again; health is asked all the while."""
    with make_daemon().start() as daemon, daemon.connect() as flooding, daemon.connect() as asking:
        flood(flooding, rounds=5)  # what the first calls take stays taken
        before_mib = Usage(daemon).memory_mib
        check = health_pb2_grpc.HealthStub(asking.channel).Check
        with ThreadPoolExecutor(1) as pool:
            flooded = pool.submit(flood, flooding, rounds=20)
            waited_s = []
            while not flooded.done():
                began = time.monotonic()
                check(health_pb2.HealthCheckRequest(), timeout=HEALTH_S)
                waited_s.append(time.monotonic() - began)
            assert flooded.result() <= {OK, grpc.StatusCode.RESOURCE_EXHAUSTED}
        assert len(waited_s) > 20
        assert quantiles(waited_s, n=100)[-1] < HEALTH_S
        assert Usage(daemon).memory_mib < before_mib + 16


def flood(connection: Connection, *, rounds: int) -> set[grpc.StatusCode]:
    """Five hundred calls at a time; gives what they were told."""
    request = pb.ListInstancesRequest()
    codes: set[grpc.StatusCode] = set()
    for _ in range(rounds):
        calls = [
            connection.instances.ListInstances.future(request, timeout=TIMEOUT_S)
            for _ in range(500)
        ]
        codes |= {call.code() for call in calls}
    return codes


def test_open_streams_do_not_keep_unary_calls_out(connection: Connection) -> None:
    request = event_pb2.WatchEventsRequest(snapshot=True)
    streams = [connection.events.WatchEvents(request, timeout=TIMEOUT_S) for _ in range(90)]
    for stream in streams:
        next(stream)
    connection.hosts.GetHost(host_pb2.GetHostRequest(), timeout=5)
    for stream in streams:
        stream.cancel()
