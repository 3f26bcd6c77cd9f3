"""Fifty at once ask for one instance: there is one, and everybody is told truly."""

import uuid
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import grpc
import pytest
from virtrpc.v1 import instance_pb2 as pb
from virtrpc.v1 import operation_pb2, types_pb2
from virtrpc.v1.operation_pb2 import Operation

from tests.conformance.conftest import state_of
from tests.daemon import Connection, DaemonProcess
from tests.instances import TIMEOUT_S, destroyed, finished, small_spec
from tests.refusals import Refusal, refusal_of

CALLERS = 50
Answer = Operation | Refusal


@dataclass(frozen=True)
class Answers:
    """What all callers got."""

    operations: Sequence[Operation]
    refusals: Sequence[Refusal]


def all_at_once(daemon: DaemonProcess, requests: Sequence[pb.SpawnInstanceRequest]) -> Answers:
    """Every request on a connection of its own, all of them open before the first call."""
    connections = [daemon.connect() for _ in requests]
    for connection in connections:
        grpc.channel_ready_future(connection.channel).result(timeout=TIMEOUT_S)

    def call(connection: Connection, request: pb.SpawnInstanceRequest) -> Answer:
        try:
            return connection.instances.SpawnInstance(request, timeout=TIMEOUT_S)
        except grpc.RpcError as error:
            return refusal_of(error)

    with ThreadPoolExecutor(len(requests)) as pool:
        answers = list(pool.map(call, connections, requests))
    for connection in connections:
        connection.close()
    return Answers(
        [answer for answer in answers if isinstance(answer, Operation)],
        [answer for answer in answers if isinstance(answer, Refusal)],
    )


@pytest.fixture
def request_of_one(backend: str) -> pb.SpawnInstanceRequest:
    return pb.SpawnInstanceRequest(instance_id=str(uuid.uuid4()), spec=small_spec(backend=backend))


def of_instance(connection: Connection, instance_id: str) -> list[Operation]:
    request = operation_pb2.ListOperationsRequest(instance_id=instance_id)
    return list(connection.operations.ListOperations(request, timeout=TIMEOUT_S).operations)


def assert_one_runs(connection: Connection, instance_id: str) -> None:
    listed = connection.instances.ListInstances(pb.ListInstancesRequest(), timeout=TIMEOUT_S)
    ids = [instance.instance_id for instance in listed.instances]
    assert ids.count(instance_id) == 1
    state = state_of(connection, instance_id).power_state
    assert state == types_pb2.POWER_STATE_RUNNING


def test_same_request_id_is_one_operation_for_all(
    daemon: DaemonProcess, connection: Connection, request_of_one: pb.SpawnInstanceRequest
) -> None:
    request_of_one.request_id = "the-one"
    try:
        answers = all_at_once(daemon, [request_of_one] * CALLERS)
        assert answers.refusals == []
        (operation_id,) = {operation.operation_id for operation in answers.operations}
        ended = finished(connection, answers.operations[0])
        assert ended.state == operation_pb2.OPERATION_STATE_SUCCEEDED
        (only,) = of_instance(connection, request_of_one.instance_id)
        assert only.operation_id == operation_id
        assert_one_runs(connection, request_of_one.instance_id)
    finally:
        destroyed(connection, request_of_one.instance_id)


def test_different_request_ids_make_one_instance_and_the_others_are_told_which_operation_runs(
    daemon: DaemonProcess, connection: Connection, request_of_one: pb.SpawnInstanceRequest
) -> None:
    requests = []
    for number in range(CALLERS):
        requests.append(pb.SpawnInstanceRequest())
        requests[-1].CopyFrom(request_of_one)
        requests[-1].request_id = f"caller-{number}"
    try:
        answers = all_at_once(daemon, requests)
        assert answers.operations
        ended = [finished(connection, operation) for operation in answers.operations]
        # Who came after the first was done is given the instance as it is.
        assert {operation.state for operation in ended} == {operation_pb2.OPERATION_STATE_SUCCEEDED}
        made = [operation for operation in ended if operation.steps]
        assert len(made) == 1
        known = {operation.operation_id for operation in ended}
        for refusal in answers.refusals:
            assert (refusal.code, refusal.reason) == (grpc.StatusCode.ABORTED, "INSTANCE_BUSY")
            assert refusal.metadata["operation_id"] in known
            assert refusal.retry_delay_s
        assert len(of_instance(connection, request_of_one.instance_id)) == len(ended)
        assert_one_runs(connection, request_of_one.instance_id)
    finally:
        destroyed(connection, request_of_one.instance_id)


def test_one_name_for_many_instances_goes_to_one_of_them(
    daemon: DaemonProcess, connection: Connection, request_of_one: pb.SpawnInstanceRequest
) -> None:
    """Names are unique on the host, also among those that are being made."""
    requests = []
    for _ in range(5):
        requests.append(pb.SpawnInstanceRequest())
        requests[-1].CopyFrom(request_of_one)
        requests[-1].instance_id = str(uuid.uuid4())
    try:
        answers = all_at_once(daemon, requests)
        ended = [finished(connection, operation) for operation in answers.operations]
        states = Counter(operation.state for operation in ended)
        assert states[operation_pb2.OPERATION_STATE_SUCCEEDED] == 1
        for operation in ended:
            if operation.HasField("error"):
                assert operation.error.reason == "NAME_TAKEN"
                assert operation.error.code == grpc.StatusCode.ALREADY_EXISTS.value[0]
        for refusal in answers.refusals:
            assert refusal.reason == "NAME_TAKEN"
    finally:
        for request in requests:
            destroyed(connection, request.instance_id)
