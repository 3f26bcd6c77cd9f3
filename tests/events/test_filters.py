"""What a watcher did not ask for does not come; the stream itself is always told."""

from virtrpc.v1 import event_pb2
from virtrpc.v1.event_pb2 import WatchEventsRequest

from tests.daemon import Connection
from tests.events.controllers import destroy, spawn, toggle, watch
from tests.events_seen import cursor_now


def test_only_events_of_the_types_asked_for_come(to_fake: Connection) -> None:
    instance_id = spawn(to_fake)
    types = [event_pb2.EVENT_TYPE_PAUSED, event_pb2.EVENT_TYPE_RESUMED]
    stream = watch(to_fake, WatchEventsRequest(after=cursor_now(to_fake), types=types))
    toggle(to_fake, instance_id)
    assert [next(stream).type for _ in types] == types
    assert next(stream).type == event_pb2.EVENT_TYPE_HEARTBEAT
    destroy(to_fake, instance_id)


def test_only_events_of_the_instances_asked_for_come(to_fake: Connection) -> None:
    mine, other = spawn(to_fake), spawn(to_fake)
    request = WatchEventsRequest(after=cursor_now(to_fake), instance_ids=[mine.upper()])
    stream = watch(to_fake, request)
    toggle(to_fake, other)
    toggle(to_fake, mine)
    events = [next(stream) for _ in range(8)]
    assert {event.instance_id for event in events} == {mine}
    for instance_id in (mine, other):
        destroy(to_fake, instance_id)


def test_heartbeat_carries_the_last_cursor_though_nothing_was_wanted(to_fake: Connection) -> None:
    begin = cursor_now(to_fake)
    request = WatchEventsRequest(after=begin, types=[event_pb2.EVENT_TYPE_WATCHDOG])
    stream = watch(to_fake, request)
    instance_id = spawn(to_fake)
    destroy(to_fake, instance_id)
    now = cursor_now(to_fake)
    for event in stream:
        assert event.type == event_pb2.EVENT_TYPE_HEARTBEAT
        assert begin.sequence <= event.cursor.sequence <= now.sequence
        if event.cursor.sequence == now.sequence:
            break


def test_quiet_stream_has_heartbeats_with_an_unchanged_cursor(to_fake: Connection) -> None:
    now = cursor_now(to_fake)
    stream = watch(to_fake, WatchEventsRequest())
    beats = [next(stream) for _ in range(3)]
    assert {event.type for event in beats} == {event_pb2.EVENT_TYPE_HEARTBEAT}
    assert {event.cursor.sequence for event in beats} == {now.sequence}
    assert {event.cursor.epoch for event in beats} == {now.epoch}


def test_watchers_that_leave_make_room_for_others(to_fake: Connection) -> None:
    """More come and go than may be there at a time (2,048)."""
    for _ in range(2100):
        stream = to_fake.events.WatchEvents(WatchEventsRequest(snapshot=True), timeout=60)
        assert next(stream).event.type == event_pb2.EVENT_TYPE_SNAPSHOT_END
        stream.cancel()
