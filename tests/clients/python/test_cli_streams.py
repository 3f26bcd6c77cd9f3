"""`virtrpc event`, `console`, `operation`: streams and their ends."""

import json
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from virtrpc.v1 import console_pb2 as console
from virtrpc.v1 import operation_pb2 as operations
from virtrpc.v1.event_pb2 import Event, EventCursor, EventType, WatchEventsResponse
from virtrpc.v1.instance_pb2 import Instance, ListInstancesResponse
from virtrpc.v1.operation_pb2 import Operation, OperationState
from virtrpc.v1.types_pb2 import Error, PowerState

from tests.clients.python.conftest import Cli
from tests.clients.python.scripted import Answer, ScriptedDaemon, refusal

WEB_1 = "3b241101-e2bb-4255-8caf-4136c566a962"
OPERATION = "5f0c0d5e-0000-4000-8000-000000000007"
GONE = "the stream ends here"


def streams(*messages: Any, then: Exception | None = None) -> Answer:
    def answer(_request: object) -> Iterator[Any]:
        yield from messages
        if then is not None:
            raise then

    return answer


def event(sequence: int, type_: EventType.ValueType, **facts: Any) -> WatchEventsResponse:
    cursor = EventCursor(epoch="e", sequence=sequence)
    return WatchEventsResponse(event=Event(cursor=cursor, type=type_, **facts))


def piece(offset: int, data: bytes, end: int, expired: int = 0) -> console.GetConsoleOutputResponse:
    return console.GetConsoleOutputResponse(
        data=data,
        offset=offset,
        next_offset=offset + len(data),
        end_offset=end,
        expired_bytes=expired,
        log_id="log",
    )


def data(offset: int, content: bytes) -> console.StreamConsoleOutputResponse:
    return console.StreamConsoleOutputResponse(
        data=console.ConsoleData(offset=offset, data=content)
    )


async def test_events_are_a_line_each(cli: Cli, daemon: ScriptedDaemon) -> None:
    daemon.answer(
        "WatchEvents",
        streams(
            event(
                1,
                EventType.EVENT_TYPE_STARTED,
                instance_id=WEB_1,
                instance_name="web-1",
                power_state=PowerState.POWER_STATE_RUNNING,
                detail="booted",
            ),
            event(
                2,
                EventType.EVENT_TYPE_OPERATION,
                operation=Operation(
                    operation_id=OPERATION,
                    verb="SpawnInstance",
                    state=OperationState.OPERATION_STATE_FAILED,
                ),
            ),
            event(9, EventType.EVENT_TYPE_GAP, lost=6),
        ),
    )
    first, second, third = (await cli("event", "watch")).out.splitlines()
    assert first.split()[1:] == ["started", "web-1", WEB_1, "running", "booted"]
    assert second.split()[1:] == ["operation", "SpawnInstance", "failed", OPERATION]
    assert "6 events are lost" in third


async def test_events_as_json_are_an_object_a_line(cli: Cli, daemon: ScriptedDaemon) -> None:
    daemon.answer(
        "WatchEvents",
        streams(event(1, EventType.EVENT_TYPE_STARTED), event(2, EventType.EVENT_TYPE_STOPPED)),
    )
    outcome = await cli("event", "watch", "-o", "json")
    told = [json.loads(line) for line in outcome.out.splitlines()]
    assert [item["cursor"]["sequence"] for item in told] == ["1", "2"]


async def test_events_are_asked_for_as_told(cli: Cli, daemon: ScriptedDaemon) -> None:
    daemon.answer("WatchEvents", streams())
    daemon.answer(
        "ListInstances",
        lambda _: ListInstancesResponse(instances=[Instance(instance_id=WEB_1, name="web-1")]),
    )
    outcome = await cli(
        "event", "watch", "--snapshot", "--type", "started", "--type", "device-added",
        "--instance", "web-1", "--after", "e:p:7",
    )  # fmt: skip
    assert outcome.code == 0
    (request,) = daemon.requests["WatchEvents"]
    assert request.snapshot
    assert list(request.types) == [
        EventType.EVENT_TYPE_STARTED,
        EventType.EVENT_TYPE_DEVICE_ADDED,
    ]
    assert list(request.instance_ids) == [WEB_1]
    assert (request.after.epoch, request.after.sequence) == ("e:p", 7)


@pytest.mark.parametrize("cursor", ["7", ":7", "e:", "e:x"])
async def test_a_malformed_cursor_is_wrong_usage(cli: Cli, cursor: str) -> None:
    assert (await cli("event", "watch", "--after", cursor)).code == 2


async def test_a_mended_stream_is_noted_for_people(cli: Cli, daemon: ScriptedDaemon) -> None:
    broken = refusal(grpc.StatusCode.UNAVAILABLE, "stops", reason="SHUTTING_DOWN")
    first = streams(event(1, EventType.EVENT_TYPE_STARTED), then=broken)
    second = streams(event(2, EventType.EVENT_TYPE_STOPPED))
    daemon.answer("WatchEvents", first, second)
    outcome = await cli("event", "watch")
    assert len(outcome.out.splitlines()) == 2
    assert outcome.err == "connection lost, trying again in 0.1 s: stops (SHUTTING_DOWN)\n"


async def test_console_log_reads_on_to_the_end_it_had(cli: Cli, daemon: ScriptedDaemon) -> None:
    daemon.answer("GetConsoleOutput", lambda _: piece(0, b"abc", 5), lambda _: piece(3, b"de", 900))
    assert (await cli("console", "log", WEB_1)).out == "abcde"
    first, second = daemon.requests["GetConsoleOutput"]
    assert (first.WhichOneof("start"), first.offset, first.log_id) == ("offset", 0, "")
    assert (second.offset, second.log_id) == (3, "log")


async def test_console_log_can_be_a_tail(cli: Cli, daemon: ScriptedDaemon) -> None:
    daemon.answer("GetConsoleOutput", lambda _: piece(7, b"tail", 11))
    assert (await cli("console", "log", WEB_1, "--tail", "64K")).out == "tail"
    assert daemon.requests["GetConsoleOutput"][0].tail_bytes == 65536


async def test_console_log_says_where_bytes_are_missing(cli: Cli, daemon: ScriptedDaemon) -> None:
    daemon.answer(
        "GetConsoleOutput",
        lambda _: piece(0, b"head", 99),
        lambda _: piece(90, b"tail-tail", 99, 86),
    )
    outcome = await cli("console", "log", WEB_1)
    assert (outcome.out, outcome.err.strip()) == ("headtail-tail", "86 bytes have expired")


async def test_tail_and_offset_exclude_each_other(cli: Cli) -> None:
    for verb in ("log", "follow"):
        outcome = await cli("console", verb, WEB_1, "--tail", "1", "--offset", "1")
        assert outcome.code == 2


async def test_console_follow_resumes_and_notes_gaps_apart(
    cli: Cli, daemon: ScriptedDaemon
) -> None:
    expired = console.StreamConsoleOutputResponse(expired=console.ConsoleRange(begin=3, end=8))
    broken = refusal(grpc.StatusCode.UNAVAILABLE, reason="SHUTTING_DOWN")
    daemon.answer(
        "StreamConsoleOutput",
        streams(data(0, b"abc"), then=broken),
        streams(expired, data(8, b"d")),
    )
    outcome = await cli("console", "follow", WEB_1, "--offset", "0")
    assert outcome.out == "abcd"
    assert "5 bytes have expired" in outcome.err
    assert [request.offset for request in daemon.requests["StreamConsoleOutput"]] == [0, 3]


async def test_console_follow_begins_with_a_short_tail(cli: Cli, daemon: ScriptedDaemon) -> None:
    moved = console.StreamConsoleOutputResponse(
        moved=console.ConsoleMoved(host_uri="grpcs://host-b:1")
    )
    daemon.answer("StreamConsoleOutput", streams(moved))
    assert "grpcs://host-b:1" in (await cli("console", "follow", WEB_1)).err
    assert daemon.requests["StreamConsoleOutput"][0].tail_bytes == 4096


async def test_console_follow_as_json_is_an_object_a_line(cli: Cli, daemon: ScriptedDaemon) -> None:
    daemon.answer("StreamConsoleOutput", streams(data(0, b"abc")))
    outcome = await cli("console", "follow", WEB_1, "-o", "json")
    assert json.loads(outcome.out) == {"data": {"data": "YWJj"}}


def operation(state: OperationState.ValueType, **facts: Any) -> Operation:
    return Operation(operation_id=OPERATION, verb="SpawnInstance", state=state, **facts)


SUCCEEDED = operation(OperationState.OPERATION_STATE_SUCCEEDED, done=True)
FAILED = operation(
    OperationState.OPERATION_STATE_FAILED, done=True, error=Error(code=8, message="full")
)


async def test_operations_are_listed_up_to_the_limit(cli: Cli, daemon: ScriptedDaemon) -> None:
    daemon.answer(
        "ListOperations",
        lambda _: operations.ListOperationsResponse(
            operations=[SUCCEEDED, FAILED],
            next_page_token="more",  # noqa: S106 - no secret
        ),
    )
    outcome = await cli(
        "operation", "list", "--limit", "3", "--state", "failed", "--verb", "X",
        "--instance", WEB_1, "-o", "json",
    )  # fmt: skip
    assert len(json.loads(outcome.out)["operations"]) == 3
    request = daemon.requests["ListOperations"][0]
    assert (request.instance_id, request.verb, request.page.page_size) == (WEB_1, "X", 3)
    assert list(request.states) == [OperationState.OPERATION_STATE_FAILED]
    assert OPERATION in (await cli("operation", "list")).out


async def test_an_operation_is_shown_with_its_error_and_steps(
    cli: Cli, daemon: ScriptedDaemon
) -> None:
    shown = Operation()
    shown.CopyFrom(FAILED)
    shown.steps.add(name="define")
    shown.recovered = True
    daemon.answer("GetOperation", lambda _: shown)
    out = (await cli("operation", "get", OPERATION)).out
    assert "full (RESOURCE_EXHAUSTED)" in out
    assert "finished after a restart" in out
    assert "define" in out


@pytest.mark.parametrize(("ended", "code"), [(SUCCEEDED, 0), (FAILED, 72)])
async def test_watching_and_waiting_exit_as_the_operation_ended(
    cli: Cli, daemon: ScriptedDaemon, ended: Operation, code: int
) -> None:
    daemon.answer("WatchOperation", streams(operations.WatchOperationResponse(operation=ended)))
    daemon.answer("WaitOperation", lambda _: ended)
    daemon.answer("GetOperation", lambda _: ended)
    for verb in ("watch", "wait"):
        outcome = await cli("operation", verb, OPERATION)
        assert outcome.code == code
        assert ("succeeded" in outcome.out) == (code == 0)


async def test_watching_as_json_gives_every_state(cli: Cli, daemon: ScriptedDaemon) -> None:
    running = operation(OperationState.OPERATION_STATE_RUNNING, phase="image")
    daemon.answer(
        "WatchOperation",
        streams(*(operations.WatchOperationResponse(operation=o) for o in (running, FAILED))),
    )
    outcome = await cli("operation", "watch", OPERATION, "-o", "json")
    first, second = (json.loads(line) for line in outcome.out.splitlines())
    assert (first["phase"], second["done"]) == ("image", True)
    assert json.loads(outcome.err)["operation_id"] == OPERATION


async def test_a_wait_that_is_too_short_says_that_the_operation_goes_on(
    cli: Cli, daemon: ScriptedDaemon
) -> None:
    running = operation(OperationState.OPERATION_STATE_RUNNING)
    daemon.answer("WaitOperation", lambda _: running)
    outcome = await cli("operation", "wait", OPERATION, "--timeout", "0")
    assert outcome.code == 68
    assert f"operation {OPERATION} goes on" in outcome.err
    assert outcome.err.count("error:") == 1


async def test_cancel_replies_with_the_operation(cli: Cli, daemon: ScriptedDaemon) -> None:
    rolling = operation(OperationState.OPERATION_STATE_ROLLING_BACK)
    daemon.answer("CancelOperation", lambda _: rolling)
    assert "rolling-back" in (await cli("operation", "cancel", OPERATION)).out
