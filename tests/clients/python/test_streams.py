"""Streams resume by themselves: events by cursor, consoles by offset, operations anew."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from itertools import islice
from typing import Any

import grpc
import pytest
from virtrpc import AsyncClient, Client, RpcError, errors
from virtrpc.resume import Backoff
from virtrpc.v1.console_pb2 import (
    ConsoleData,
    ConsoleHeartbeat,
    ConsoleMoved,
    ConsoleRange,
    StreamConsoleOutputResponse,
)
from virtrpc.v1.event_pb2 import Event, EventCursor, EventType, WatchEventsResponse
from virtrpc.v1.operation_pb2 import Operation, WatchOperationResponse

from tests.clients.python.scripted import Answer, ScriptedDaemon, refusal
from tests.clients.python.threads import in_thread

BACKOFF = Backoff(first_s=0, tries=3)
STARTED = EventType.EVENT_TYPE_STARTED
GAP = EventType.EVENT_TYPE_GAP
HEARTBEAT = EventType.EVENT_TYPE_HEARTBEAT
SNAPSHOT = EventType.EVENT_TYPE_SNAPSHOT
SNAPSHOT_END = EventType.EVENT_TYPE_SNAPSHOT_END
Follow = Callable[..., Awaitable[list[Any]]]


@pytest.fixture(params=["sync", "async"])
def follow(request: pytest.FixtureRequest, daemon: ScriptedDaemon) -> Follow:
    """The first `count` items (None: all) of a stream of either client."""

    async def blocking(verb: str, *arguments: Any, count: int | None, **options: Any) -> list[Any]:
        def read() -> list[Any]:
            with Client(daemon.address, backoff=BACKOFF) as client:
                return list(islice(getattr(client, verb)(*arguments, **options), count))

        return await in_thread(read)

    async def asynchronous(
        verb: str, *arguments: Any, count: int | None, **options: Any
    ) -> list[Any]:
        async with AsyncClient(daemon.address, backoff=BACKOFF) as client:
            items: list[Any] = []
            stream = getattr(client, verb)(*arguments, **options)
            async for item in stream:
                items.append(item)
                if len(items) == count:
                    break
            await stream.aclose()
            return items

    return blocking if request.param == "sync" else asynchronous


def events(*found: tuple[int, EventType.ValueType], then: Exception | None = None) -> Answer:
    """A stream of events of these numbers and types, which then breaks or stays open."""

    async def answer(_request: object) -> AsyncIterator[WatchEventsResponse]:
        for sequence, type_ in found:
            cursor = EventCursor(epoch="e", sequence=sequence)
            yield WatchEventsResponse(event=Event(cursor=cursor, type=type_))
        if then is not None:
            raise then
        await asyncio.get_running_loop().create_future()

    return answer


def console(*messages: StreamConsoleOutputResponse, then: Exception | None = None) -> Answer:
    def answer(_request: object) -> Iterator[StreamConsoleOutputResponse]:
        yield from messages
        if then is not None:
            raise then

    return answer


def data(offset: int, content: bytes, *, log_id: str = "") -> StreamConsoleOutputResponse:
    return StreamConsoleOutputResponse(data=ConsoleData(offset=offset, data=content), log_id=log_id)


def heartbeat(end_offset: int, *, log_id: str = "") -> StreamConsoleOutputResponse:
    return StreamConsoleOutputResponse(
        heartbeat=ConsoleHeartbeat(end_offset=end_offset), log_id=log_id
    )


def stopping() -> Exception:
    return refusal(grpc.StatusCode.UNAVAILABLE, reason="SHUTTING_DOWN")


def too_slow() -> Exception:
    return refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, reason="WATCHER_TOO_SLOW")


def sequences(found: list[Event]) -> list[int]:
    return [event.cursor.sequence for event in found]


def cursors(daemon: ScriptedDaemon) -> list[int | None]:
    """The sequence that each call resumed after; None: from now on."""
    return [
        request.after.sequence if request.HasField("after") else None
        for request in daemon.requests["WatchEvents"]
    ]


@pytest.mark.parametrize("break_", [stopping, too_slow], ids=lambda make: make.__name__)
async def test_events_resume_behind_the_last_one(
    follow: Follow, daemon: ScriptedDaemon, break_: Callable[[], Exception]
) -> None:
    daemon.answer(
        "WatchEvents",
        events((4, STARTED), (5, STARTED), then=break_()),
        events((6, STARTED)),
    )
    found = await follow("watch_events", count=3)
    assert sequences(found) == [4, 5, 6]
    assert cursors(daemon) == [None, 5]


async def test_a_gap_is_passed_on(follow: Follow, daemon: ScriptedDaemon) -> None:
    daemon.answer(
        "WatchEvents", events((4, STARTED), then=stopping()), events((90, GAP), (91, STARTED))
    )
    found = await follow("watch_events", count=3)
    assert [(event.cursor.sequence, event.type) for event in found[1:]] == [
        (90, GAP),
        (91, STARTED),
    ]


async def test_heartbeats_move_the_cursor_and_are_not_passed_on(
    follow: Follow, daemon: ScriptedDaemon
) -> None:
    daemon.answer(
        "WatchEvents", events((8, HEARTBEAT), then=stopping()), events((9, HEARTBEAT), (9, STARTED))
    )
    assert sequences(await follow("watch_events", count=1)) == [9]
    assert cursors(daemon) == [None, 8]


async def test_heartbeats_are_passed_on_when_asked_for(
    follow: Follow, daemon: ScriptedDaemon
) -> None:
    daemon.answer("WatchEvents", events((8, HEARTBEAT)))
    assert sequences(await follow("watch_events", count=1, heartbeats=True)) == [8]


async def test_a_snapshot_that_broke_off_comes_again(
    follow: Follow, daemon: ScriptedDaemon
) -> None:
    daemon.answer(
        "WatchEvents",
        events((7, SNAPSHOT), then=stopping()),
        events((8, SNAPSHOT), (8, SNAPSHOT_END), then=stopping()),
        events((9, STARTED)),
    )
    found = await follow("watch_events", count=4, snapshot=True)
    assert [event.type for event in found] == [SNAPSHOT, SNAPSHOT, SNAPSHOT_END, STARTED]
    assert cursors(daemon) == [None, None, 8]
    assert all(request.snapshot for request in daemon.requests["WatchEvents"])


async def test_a_snapshot_that_a_gap_called_for_is_not_lost_by_a_break(
    follow: Follow, daemon: ScriptedDaemon
) -> None:
    daemon.answer(
        "WatchEvents",
        events((50, GAP), (50, SNAPSHOT), then=stopping()),
        events((60, GAP), (60, SNAPSHOT), (60, SNAPSHOT_END)),
    )
    after = EventCursor(epoch="e", sequence=3)
    found = await follow("watch_events", count=5, snapshot=True, after=after)
    assert found[-1].type == SNAPSHOT_END
    assert cursors(daemon) == [3, 3]


async def test_a_stream_that_never_began_is_not_resumed(
    follow: Follow, daemon: ScriptedDaemon
) -> None:
    daemon.answer("WatchEvents", events(then=stopping()))
    with pytest.raises(errors.UnavailableError):
        await follow("watch_events", count=1)
    assert len(daemon.requests["WatchEvents"]) == 1


async def test_other_errors_are_raised_at_once(follow: Follow, daemon: ScriptedDaemon) -> None:
    denied = refusal(grpc.StatusCode.PERMISSION_DENIED, reason="ROLE_MISSING")
    daemon.answer("WatchEvents", events((1, STARTED), then=denied))
    with pytest.raises(errors.PermissionDeniedError):
        await follow("watch_events", count=2)
    assert len(daemon.requests["WatchEvents"]) == 1


async def test_retries_are_bounded_told_and_heed_retry_info(
    follow: Follow, daemon: ScriptedDaemon
) -> None:
    told: list[tuple[str, float]] = []

    def on_retry(error: RpcError, pause_s: float) -> None:
        told.append((error.reason, pause_s))

    overloaded = refusal(
        grpc.StatusCode.RESOURCE_EXHAUSTED, reason="OVERLOADED", retry_after_s=0.01
    )
    daemon.answer("WatchEvents", events((1, STARTED), then=stopping()), events(then=overloaded))
    with pytest.raises(errors.ResourceExhaustedError):
        await follow("watch_events", count=2, on_retry=on_retry)
    assert told == [("SHUTTING_DOWN", 0), ("OVERLOADED", 0.01), ("OVERLOADED", 0.01)]


async def test_every_message_gives_all_tries_back(follow: Follow, daemon: ScriptedDaemon) -> None:
    breaks = [events((number, STARTED), then=stopping()) for number in range(1, 8)]
    daemon.answer("WatchEvents", *breaks)
    assert sequences(await follow("watch_events", count=7)) == list(range(1, 8))


async def test_filters_are_asked_for_again(follow: Follow, daemon: ScriptedDaemon) -> None:
    daemon.answer("WatchEvents", events((1, STARTED), then=stopping()), events((2, STARTED)))
    await follow("watch_events", count=2, instance_ids=["i"], types=[STARTED])
    for request in daemon.requests["WatchEvents"]:
        assert (list(request.instance_ids), list(request.types)) == (["i"], [STARTED])


async def test_console_resumes_behind_the_last_byte_of_the_same_log(
    follow: Follow, daemon: ScriptedDaemon
) -> None:
    daemon.answer(
        "StreamConsoleOutput",
        console(heartbeat(100, log_id="log"), data(10, b"abc"), then=stopping()),
        console(heartbeat(100, log_id="log"), data(13, b"def")),
    )
    found = await follow("follow_console", "i", offset=10, count=None)
    assert b"".join(message.data.data for message in found) == b"abcdef"
    first, second = daemon.requests["StreamConsoleOutput"]
    assert (first.offset, first.log_id, first.follow) == (10, "", True)
    assert (second.offset, second.log_id, second.follow) == (13, "log", True)


async def test_console_resumes_behind_an_expired_range(
    follow: Follow, daemon: ScriptedDaemon
) -> None:
    expired = StreamConsoleOutputResponse(expired=ConsoleRange(begin=0, end=500))
    daemon.answer(
        "StreamConsoleOutput", console(expired, then=stopping()), console(data(500, b"x"))
    )
    found = await follow("follow_console", "i", offset=0, count=None)
    assert [message.WhichOneof("message") for message in found] == ["expired", "data"]
    assert daemon.requests["StreamConsoleOutput"][1].offset == 500


@pytest.mark.parametrize(
    ("start", "resumed_at"), [({}, 300), ({"tail_bytes": 100}, 200), ({"tail_bytes": 999}, 0)]
)
async def test_console_without_a_byte_yet_resumes_where_it_was_to_begin(
    follow: Follow, daemon: ScriptedDaemon, start: dict[str, int], resumed_at: int
) -> None:
    daemon.answer(
        "StreamConsoleOutput", console(heartbeat(300), then=stopping()), console(data(300, b"x"))
    )
    await follow("follow_console", "i", count=None, **start)
    second = daemon.requests["StreamConsoleOutput"][1]
    assert (second.WhichOneof("start"), second.offset) == ("offset", resumed_at)


async def test_console_ends_when_it_has_moved(follow: Follow, daemon: ScriptedDaemon) -> None:
    moved = StreamConsoleOutputResponse(moved=ConsoleMoved(host_uri="grpcs://b:1", offset=3))
    daemon.answer("StreamConsoleOutput", console(data(0, b"abc"), moved, then=stopping()))
    found = await follow("follow_console", "i", count=None)
    assert found[-1].moved.host_uri == "grpcs://b:1"
    assert len(daemon.requests["StreamConsoleOutput"]) == 1


async def test_console_of_another_log_is_an_error(follow: Follow, daemon: ScriptedDaemon) -> None:
    changed = refusal(grpc.StatusCode.OUT_OF_RANGE, reason="LOG_CHANGED")
    daemon.answer(
        "StreamConsoleOutput", console(data(0, b"abc"), then=stopping()), console(then=changed)
    )
    with pytest.raises(errors.OutOfRangeError) as caught:
        await follow("follow_console", "i", count=None)
    assert caught.value.reason == "LOG_CHANGED"


async def test_an_operation_is_watched_to_its_end_over_a_restart(
    follow: Follow, daemon: ScriptedDaemon
) -> None:
    def begun(_request: object) -> Iterator[WatchOperationResponse]:
        yield WatchOperationResponse(operation=Operation(phase="image"))
        raise stopping()

    def ended(_request: object) -> Iterator[WatchOperationResponse]:
        yield WatchOperationResponse(operation=Operation(phase="start"))
        yield WatchOperationResponse(operation=Operation(done=True))

    daemon.answer("WatchOperation", begun, ended)
    found = await follow("watch_operation", "7", count=None)
    assert [(operation.phase, operation.done) for operation in found] == [
        ("image", False),
        ("start", False),
        ("", True),
    ]


async def test_an_operation_whose_stream_ends_too_early_is_asked_for_again(
    follow: Follow, daemon: ScriptedDaemon
) -> None:
    def stream(*operations: Operation) -> Answer:
        return lambda _request: (WatchOperationResponse(operation=o) for o in operations)

    daemon.answer("WatchOperation", stream(Operation()), stream(Operation(done=True)))
    found = await follow("watch_operation", "7", count=None)
    assert [operation.done for operation in found] == [False, True]


async def test_a_watcher_that_leaves_ends_its_call(daemon: ScriptedDaemon) -> None:
    ended = asyncio.Event()

    async def answer(_request: object) -> AsyncIterator[WatchEventsResponse]:
        try:
            yield WatchEventsResponse(event=Event(type=STARTED))
            await asyncio.get_running_loop().create_future()
        finally:
            ended.set()

    daemon.answer("WatchEvents", answer)

    def leave(client: Client) -> None:
        next(iter(stream := client.watch_events()))
        stream.close()  # type: ignore[attr-defined] # a generator

    with Client(daemon.address) as client:
        await in_thread(leave, client)
        await asyncio.wait_for(ended.wait(), 10)
