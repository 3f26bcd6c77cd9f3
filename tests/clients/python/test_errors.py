"""Errors: from a status with its details to a typed exception."""

from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from virtrpc import AsyncClient, OperationError, RpcError, errors
from virtrpc.client import Client
from virtrpc.v1.instance_pb2 import GetInstanceRequest
from virtrpc.v1.operation_pb2 import Operation, OperationState

from tests.clients.python.scripted import Answer, ScriptedDaemon, refusal

REQUEST = GetInstanceRequest(instance_id="3b241101-e2bb-4255-8caf-4136c566a962")
EVERY_FAILURE = [status for status in grpc.StatusCode if status is not grpc.StatusCode.OK]


def refuses(error: Exception) -> Answer:
    def answer(_request: object) -> None:
        raise error

    return answer


async def raised(daemon: ScriptedDaemon, error: Exception) -> RpcError:
    daemon.answer("GetInstance", refuses(error))
    async with AsyncClient(daemon.address) as client:
        with pytest.raises(RpcError) as caught:
            await client.instances.GetInstance(REQUEST)
    return caught.value


async def test_error_info_gives_reason_and_metadata(daemon: ScriptedDaemon) -> None:
    error = await raised(
        daemon,
        refusal(
            grpc.StatusCode.ABORTED,
            "another mutation runs",
            reason="INSTANCE_BUSY",
            metadata={"operation_id": "17"},
            retry_after_s=1.5,
        ),
    )
    assert isinstance(error, errors.AbortedError)
    assert isinstance(error, grpc.RpcError)
    assert (error.reason, error.metadata) == ("INSTANCE_BUSY", {"operation_id": "17"})
    assert error.retry_after_s == 1.5
    assert str(error) == "another mutation runs (INSTANCE_BUSY)"
    assert (error.code(), error.details()) == (grpc.StatusCode.ABORTED, "another mutation runs")


async def test_field_violations_and_blockers_are_told_once_each(daemon: ScriptedDaemon) -> None:
    fields = error_details_pb2.BadRequest(
        field_violations=[
            error_details_pb2.BadRequest.FieldViolation(
                field="spec.name", description="taken", reason="NAME_TAKEN"
            )
        ]
    )
    violation = error_details_pb2.PreconditionFailure.Violation
    blockers = error_details_pb2.PreconditionFailure(
        violations=[
            violation(type="NAME_TAKEN", subject="spec.name", description="taken"),
            violation(type="NO_ROOM", description="full"),
        ]
    )
    error = await raised(
        daemon,
        refusal(grpc.StatusCode.FAILED_PRECONDITION, reason="BLOCKED", details=(fields, blockers)),
    )
    assert [(b.reason, b.field, b.message) for b in error.blockers] == [
        ("NAME_TAKEN", "spec.name", "taken"),
        ("NO_ROOM", "", "full"),
    ]


@pytest.mark.parametrize("status", EVERY_FAILURE, ids=lambda status: status.name)
async def test_every_status_has_its_class(daemon: ScriptedDaemon, status: grpc.StatusCode) -> None:
    error = await raised(daemon, refusal(status))
    assert error.status is status
    assert error.reason == ""
    unnamed = {grpc.StatusCode.UNKNOWN, grpc.StatusCode.DATA_LOSS}
    assert (type(error) is RpcError) is (status in unnamed)
    assert error.handles is (None if status in unnamed else status)


async def test_details_of_unknown_types_are_passed_over(daemon: ScriptedDaemon) -> None:
    error = await raised(
        daemon,
        refusal(grpc.StatusCode.INTERNAL, "m", details=(Operation(), error_details_pb2.Help())),
    )
    assert (error.message, error.blockers) == ("m", [])


def test_broken_details_leave_code_and_message() -> None:
    class Call(grpc.RpcError):
        def code(self) -> grpc.StatusCode:
            return grpc.StatusCode.NOT_FOUND

        def details(self) -> str:
            return "gone"

        def trailing_metadata(self) -> Any:
            return [("grpc-status-details-bin", b"\xff\xff")]

    error = errors.from_grpc(Call())
    assert isinstance(error, errors.NotFoundError)
    assert (error.message, error.reason) == ("gone", "")


async def test_without_the_google_rpc_package_code_and_message_are_left(
    daemon: ScriptedDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(errors, "status_pb2", None)
    error = await raised(daemon, refusal(grpc.StatusCode.NOT_FOUND, "gone", reason="X"))
    assert isinstance(error, errors.NotFoundError)
    assert (error.message, error.reason) == ("gone", "")


async def test_nobody_at_the_address_is_unavailable() -> None:
    async with AsyncClient("unix:/nonexistent/virtrpc.sock") as client:
        with pytest.raises(errors.UnavailableError) as caught:
            await client.instances.GetInstance(REQUEST)
    assert caught.value.transient
    with (
        Client("unix:/nonexistent/virtrpc.sock") as client_,
        pytest.raises(errors.UnavailableError) as caught,
    ):
        client_.instances.GetInstance(REQUEST)
    assert isinstance(caught.value.__cause__, grpc.RpcError)


def test_a_cancelled_operation_without_an_error_still_says_what_it_was() -> None:
    error = OperationError(
        Operation(
            operation_id="7",
            verb="SpawnInstance",
            state=OperationState.OPERATION_STATE_CANCELLED,
        )
    )
    assert error.status is grpc.StatusCode.CANCELLED
    assert error.message == "SpawnInstance 7 ended: cancelled"
