"""`virtrpc host enable|disable|maintenance|power|aggregate`."""

import json

import grpc
import pytest
from virtrpc.v1 import host_pb2 as messages
from virtrpc.v1.operation_pb2 import OPERATION_STATE_SUCCEEDED, Operation
from virtrpc.v1.types_pb2 import Error

from tests.clients.python.conftest import Cli
from tests.clients.python.scripted import ScriptedDaemon, refusal

AGGREGATE = "3b241101-e2bb-4255-8caf-4136c566a962"
OPERATION = "0b241101-e2bb-4255-8caf-4136c566a962"


async def test_disable_says_why_and_enable_opens_again(cli: Cli, daemon: ScriptedDaemon) -> None:
    def answer(request: messages.SetHostEnabledRequest) -> messages.SetHostEnabledResponse:
        host = messages.Host(enabled=request.enabled, disabled_reason=request.reason)
        return messages.SetHostEnabledResponse(host=host)

    daemon.answer("SetHostEnabled", answer)
    closed = await cli("host", "disable", "--reason", "full", "--request-id", "r")
    assert closed.out == "instances: new ones are refused: full\n"
    assert (await cli("host", "enable")).out == "instances: new ones are accepted\n"
    checked = await cli("host", "disable", "--validate-only")
    assert checked.out == "nothing stands in the way\n"
    sent = daemon.requests["SetHostEnabled"]
    assert [(request.enabled, request.request_id) for request in sent] == [
        (False, "r"),
        (True, ""),
        (False, ""),
    ]


async def test_enable_in_maintenance_is_a_failed_precondition(
    cli: Cli, daemon: ScriptedDaemon
) -> None:
    def refuse(_request: object) -> None:
        raise refusal(
            grpc.StatusCode.FAILED_PRECONDITION, "in maintenance", reason="HOST_IN_MAINTENANCE"
        )

    daemon.answer("SetHostEnabled", refuse)
    outcome = await cli("host", "enable")
    assert outcome.code == 64 + grpc.StatusCode.FAILED_PRECONDITION.value[0]
    assert "HOST_IN_MAINTENANCE" in outcome.err


def in_maintenance(_request: object) -> Operation:
    left = messages.MaintenanceInstance(
        instance_id=AGGREGATE,
        name="web-1",
        outcome=messages.MAINTENANCE_OUTCOME_FAILED,
        error=Error(reason="NO_DESTINATION", message="there is no destination"),
    )
    stays = messages.MaintenanceInstance(
        instance_id=OPERATION, name="web-2", outcome=messages.MAINTENANCE_OUTCOME_STAYS
    )
    result = messages.SetMaintenanceModeResponse(
        host=messages.Host(maintenance=True), instances=[stays, left]
    )
    operation = Operation(
        operation_id=OPERATION,
        verb="SetMaintenanceMode",
        state=OPERATION_STATE_SUCCEEDED,
        done=True,
    )
    operation.result.Pack(result)
    return operation


async def test_maintenance_tells_what_became_of_each_instance(
    cli: Cli, daemon: ScriptedDaemon
) -> None:
    daemon.answer("SetMaintenanceMode", in_maintenance)
    outcome = await cli("host", "maintenance", "on", "--to", "grpc://b:50051", "--parallel", "2")
    lines = outcome.out.splitlines()
    assert lines[0] == "instances: in maintenance; 1 of 2 instances are still on"
    assert [line.split()[2] for line in lines[3:]] == ["stays", "failed"]
    assert lines[-1].endswith("there is no destination")
    (request,) = daemon.requests["SetMaintenanceMode"]
    assert list(request.destination_uris) == ["grpc://b:50051"]
    assert (request.maintenance, request.max_parallel) == (True, 2)
    document = json.loads((await cli("host", "maintenance", "off", "-o", "json")).out)
    assert document["host"]["maintenance"] is True


async def test_maintenance_that_is_not_waited_for_names_its_operation(
    cli: Cli, daemon: ScriptedDaemon
) -> None:
    daemon.answer("SetMaintenanceMode", lambda _: Operation(operation_id=OPERATION))
    outcome = await cli("host", "maintenance", "on", "--no-wait")
    assert outcome.out == f"operation {OPERATION}\n"


async def test_power_needs_a_yes(cli: Cli, daemon: ScriptedDaemon) -> None:
    daemon.answer("HostPowerAction", lambda _: messages.HostPowerActionResponse())
    outcome = await cli("host", "power", "reboot", "--force", "--yes")
    assert outcome.out == "accepted by the host\n"
    (request,) = daemon.requests["HostPowerAction"]
    assert (request.action, request.force) == (messages.HOST_POWER_REBOOT, True)


@pytest.mark.parametrize(
    ("words", "rpc"),
    [
        (("add", AGGREGATE, "--name", "az", "--metadata", "zone=z1"), "AddToAggregate"),
        (("remove", AGGREGATE), "RemoveFromAggregate"),
        (("undo", "remove", AGGREGATE), "UndoAggregateOperation"),
    ],
)
async def test_aggregates_are_listed_after_a_change(
    cli: Cli, daemon: ScriptedDaemon, words: tuple[str, ...], rpc: str
) -> None:
    found = messages.Aggregate(aggregate_id=AGGREGATE, name="az", metadata={"zone": "z1"})
    response = getattr(messages, f"{rpc}Response")(aggregates=[found])
    daemon.answer(rpc, lambda _: response)
    outcome = await cli("host", "aggregate", *words)
    assert outcome.out.splitlines()[1].split()[:2] == [AGGREGATE, "az"]
    assert daemon.requests[rpc][0].aggregate_id == AGGREGATE
    if rpc == "UndoAggregateOperation":
        assert daemon.requests[rpc][0].operation == messages.AGGREGATE_OPERATION_REMOVE


async def test_aggregates_of_the_host(cli: Cli, daemon: ScriptedDaemon) -> None:
    host = messages.Host(aggregates=[messages.Aggregate(aggregate_id=AGGREGATE)])
    daemon.answer("GetHost", lambda _: messages.GetHostResponse(host=host))
    document = json.loads((await cli("host", "aggregate", "list", "-o", "json")).out)
    assert [found["aggregate_id"] for found in document["aggregates"]] == [AGGREGATE]


async def test_aggregate_that_is_no_uuid_is_wrong_usage(cli: Cli) -> None:
    assert (await cli("host", "aggregate", "remove", "x")).code == 2
