"""The seam between a snapshot and what follows it, at moments that a real daemon passes quickly."""

from collections.abc import AsyncIterator
from pathlib import Path

from virtrpc.v1 import event_pb2, options_pb2
from virtrpc.v1.event_pb2 import Event, EventCursor, WatchEventsRequest, WatchEventsResponse
from virtrpc.v1.instance_pb2 import Instance
from virtrpc.v1.types_pb2 import POWER_STATE_RUNNING

from service.dispatcher import Call
from service.events.hub import Hub
from service.identity import Identity
from service.own.events import EventVerbs
from service.roles import including
from service.truth import Truth
from tests.events.hubs import hub_in, publish


async def still_there() -> bool:
    return True


CALL = Call(Identity("test", including(options_pb2.ROLE_ADMIN)), None, still_there)
INSTANCE_ID = "11111111-1111-4111-8111-111111111111"
Stream = AsyncIterator[WatchEventsResponse | bytes]


def watching(hub: Hub, truth: Truth, request: WatchEventsRequest) -> Stream:
    request.heartbeat.FromMilliseconds(100)
    return EventVerbs(hub, truth).watch_events(request, CALL)


async def following(stream: Stream) -> Event:
    """The next event of a stream."""
    response = await anext(stream)
    if isinstance(response, bytes):
        response = WatchEventsResponse.FromString(response)
    return response.event


def starts(hub: Hub, truth: Truth) -> None:
    """An instance starts: the truth knows it, its event is still on its way."""
    truth.put(Instance(instance_id=INSTANCE_ID, power_state=POWER_STATE_RUNNING))
    hub.publish(Event(type=event_pb2.EVENT_TYPE_STARTED, instance_id=INSTANCE_ID))


async def test_event_that_the_snapshot_has_in_it_does_not_follow_it(tmp_path: Path) -> None:
    async with hub_in(tmp_path) as hub:
        truth = Truth()
        starts(hub, truth)
        stream = watching(hub, truth, WatchEventsRequest(snapshot=True))
        shown, end = await following(stream), await following(stream)
        assert shown.type == event_pb2.EVENT_TYPE_SNAPSHOT
        assert shown.cursor == end.cursor
        assert end.cursor.sequence == 1
        publish(hub, 1)
        assert (await following(stream)).cursor.sequence == 2


async def test_snapshot_is_shown_only_when_its_cursor_is_on_disk(tmp_path: Path) -> None:
    async with hub_in(tmp_path) as hub:
        truth = Truth()
        starts(hub, truth)
        stream = watching(hub, truth, WatchEventsRequest(snapshot=True))
        shown = await following(stream)
        assert hub.delivered == shown.cursor.sequence
        assert len(await hub.logged(after=0)) == 1


async def test_cursor_of_a_snapshot_is_good_at_once(tmp_path: Path) -> None:
    async with hub_in(tmp_path) as hub:
        truth = Truth()
        starts(hub, truth)
        shown = await following(watching(hub, truth, WatchEventsRequest(snapshot=True)))
        again = watching(hub, truth, WatchEventsRequest(after=shown.cursor))
        assert (await following(again)).type == event_pb2.EVENT_TYPE_HEARTBEAT


async def test_snapshot_after_a_gap_is_of_the_moment_when_it_is_taken(tmp_path: Path) -> None:
    async with hub_in(tmp_path) as hub:
        truth = Truth()
        request = WatchEventsRequest(snapshot=True, after=EventCursor(epoch="another"))
        stream = watching(hub, truth, request)
        assert (await following(stream)).type == event_pb2.EVENT_TYPE_GAP
        starts(hub, truth)
        assert (await following(stream)).type == event_pb2.EVENT_TYPE_SNAPSHOT
        end = await following(stream)
        assert (end.type, end.cursor.sequence) == (event_pb2.EVENT_TYPE_SNAPSHOT_END, 1)
        assert (await following(stream)).type == event_pb2.EVENT_TYPE_HEARTBEAT


async def test_event_published_while_a_cursor_is_looked_up_comes_once(tmp_path: Path) -> None:
    async with hub_in(tmp_path) as hub:
        publish(hub, 3)
        await hub.reached(3)
        cursor = EventCursor(epoch=hub.epoch, sequence=1)
        stream = watching(hub, Truth(), WatchEventsRequest(after=cursor))
        first = await following(stream)
        publish(hub, 2)
        rest = [await following(stream) for _ in range(3)]
        assert [e.cursor.sequence for e in (first, *rest)] == [2, 3, 4, 5]
