"""The clients: services by noun, deadlines, waiting for operations."""

from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Any

import grpc
import pytest
from google.protobuf.any_pb2 import Any as Packed
from google.protobuf.message import Message
from virtrpc import AsyncClient, Client, OperationError, errors
from virtrpc.outcome import result_of
from virtrpc.paging import pages
from virtrpc.resume import Backoff
from virtrpc.services import SERVICES
from virtrpc.v1.instance_pb2 import Instance, ListInstancesRequest, ListInstancesResponse
from virtrpc.v1.operation_pb2 import GetOperationRequest, Operation, OperationState
from virtrpc.v1.types_pb2 import Error

from tests.clients.python.scripted import ScriptedDaemon, refusal
from tests.clients.python.threads import in_thread

NO_PAUSE = Backoff(first_s=0, tries=5)
Wait = Callable[..., Awaitable[Message | None]]


@pytest.fixture(params=["sync", "async"])
def wait(request: pytest.FixtureRequest, daemon: ScriptedDaemon) -> Wait:
    """`wait` of either client."""

    async def blocking(operation: Any, **options: Any) -> Message | None:
        with Client(daemon.address, backoff=NO_PAUSE) as client:
            return await in_thread(partial(client.wait, operation, **options))

    async def asynchronous(operation: Any, **options: Any) -> Message | None:
        async with AsyncClient(daemon.address, backoff=NO_PAUSE) as client:
            return await client.wait(operation, **options)

    return blocking if request.param == "sync" else asynchronous


def running(_request: object = None) -> Operation:
    return Operation(operation_id="7", state=OperationState.OPERATION_STATE_RUNNING)


def succeeded(_request: object = None) -> Operation:
    packed = Packed()
    packed.Pack(Instance(name="web-1"))
    return Operation(
        operation_id="7",
        state=OperationState.OPERATION_STATE_SUCCEEDED,
        done=True,
        result=packed,
    )


def failed(_request: object = None) -> Operation:
    return Operation(
        operation_id="7",
        state=OperationState.OPERATION_STATE_FAILED,
        done=True,
        error=Error(code=8, reason="NO_ROOM", message="full", metadata={"mib": "1"}),
    )


def unavailable(_request: object) -> Operation:
    raise refusal(grpc.StatusCode.UNAVAILABLE, reason="SHUTTING_DOWN")


async def test_every_service_has_a_stub_by_its_noun(daemon: ScriptedDaemon) -> None:
    async with AsyncClient(daemon.address) as client:
        stubs = {noun: type(getattr(client, noun)).__name__ for noun in SERVICES}
    assert stubs == {noun: f"{name}ServiceStub" for noun, name in SERVICES.items()}


async def test_a_stub_is_made_once(daemon: ScriptedDaemon) -> None:
    async with AsyncClient(daemon.address) as client:
        assert client.instances is client.instances


async def test_an_unknown_noun_is_an_attribute_error(daemon: ScriptedDaemon) -> None:
    async with AsyncClient(daemon.address) as client:
        assert not hasattr(client, "flavors")


async def test_deadline_of_the_client_holds_where_a_call_gives_none(
    daemon: ScriptedDaemon,
) -> None:
    daemon.answer("GetOperation", succeeded)
    async with AsyncClient(daemon.address, timeout_s=50) as client:
        await client.operations.GetOperation(GetOperationRequest())
        await client.operations.GetOperation(GetOperationRequest(), timeout=5)
    first_s, second_s = daemon.deadlines_s["GetOperation"]
    assert first_s is not None and second_s is not None
    assert 40 < first_s < 55
    assert second_s < 10


async def test_wait_returns_the_typed_result(wait: Wait, daemon: ScriptedDaemon) -> None:
    daemon.answer("WaitOperation", running, succeeded)
    result = await wait("7")
    assert isinstance(result, Instance)
    assert result.name == "web-1"
    assert [r.operation_id for r in daemon.requests["WaitOperation"]] == ["7", "7"]


async def test_wait_for_an_ended_operation_asks_nobody(wait: Wait, daemon: ScriptedDaemon) -> None:
    assert await wait(succeeded()) == Instance(name="web-1")
    assert not daemon.requests


async def test_wait_goes_on_over_a_restart(wait: Wait, daemon: ScriptedDaemon) -> None:
    daemon.answer("WaitOperation", unavailable, unavailable, succeeded)
    assert await wait(running()) == Instance(name="web-1")


async def test_wait_gives_up_on_a_daemon_that_stays_away(
    wait: Wait, daemon: ScriptedDaemon
) -> None:
    daemon.answer("WaitOperation", unavailable)
    with pytest.raises(errors.UnavailableError):
        await wait("7")
    assert len(daemon.requests["WaitOperation"]) == 1 + NO_PAUSE.tries


async def test_wait_raises_what_the_operation_failed_with(
    wait: Wait, daemon: ScriptedDaemon
) -> None:
    daemon.answer("WaitOperation", failed)
    with pytest.raises(OperationError) as caught:
        await wait("7")
    error = caught.value
    assert error.status is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert (error.reason, error.message, error.metadata) == ("NO_ROOM", "full", {"mib": "1"})
    assert error.operation.operation_id == "7"


async def test_wait_ends_at_its_timeout_and_says_that_the_operation_goes_on(
    wait: Wait, daemon: ScriptedDaemon
) -> None:
    daemon.answer("WaitOperation", running)
    with pytest.raises(errors.DeadlineExceededError) as caught:
        await wait("7", timeout_s=0)
    assert caught.value.reason == "STILL_RUNNING"
    assert len(daemon.requests["WaitOperation"]) == 1


async def test_wait_without_a_timeout_asks_in_slices(wait: Wait, daemon: ScriptedDaemon) -> None:
    daemon.answer("WaitOperation", succeeded)
    await wait("7")
    (request,), (deadline_s,) = (
        daemon.requests["WaitOperation"],
        daemon.deadlines_s["WaitOperation"],
    )
    assert request.timeout.ToSeconds() == 60
    assert deadline_s is not None and 60 < deadline_s < 80


def test_result_of_an_operation_that_has_not_ended_is_refused() -> None:
    with pytest.raises(ValueError, match="has not ended"):
        result_of(running())


def test_a_success_without_a_result_is_none() -> None:
    ended = Operation(state=OperationState.OPERATION_STATE_SUCCEEDED, done=True)
    assert result_of(ended) is None


def test_pages_are_fetched_one_after_the_other() -> None:
    asked = []

    def call(request: ListInstancesRequest) -> ListInstancesResponse:
        asked.append(request.page.page_token)
        token = {"": "a", "a": "b", "b": ""}[request.page.page_token]
        return ListInstancesResponse(next_page_token=token)

    found: Iterator[ListInstancesResponse] = pages(call, ListInstancesRequest())
    next(found)
    assert asked == [""]
    assert len(list(found)) == 2
    assert asked == ["", "a", "b"]
