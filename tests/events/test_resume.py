"""A watcher resumes from any cursor and misses nothing, or is told what it missed."""

from collections.abc import Callable
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from virtrpc.v1 import event_pb2
from virtrpc.v1.event_pb2 import Event, EventCursor, WatchEventsRequest, WatchEventsResponse

from service.events.log import RETAINED_EVENTS, EventLog
from tests.daemon import Connection, DaemonProcess
from tests.events.controllers import contiguous, follow, sequences, toggle, watch
from tests.events_seen import cursor_now

FEW = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def first_event(connection: Connection, after: EventCursor, *, snapshot: bool = False) -> Event:
    """What a stream begins with."""
    stream = watch(connection, WatchEventsRequest(after=after, snapshot=snapshot))
    try:
        return next(stream)
    finally:
        stream.close()  # type: ignore[attr-defined]


def test_history_is_without_a_gap(history: list[Event]) -> None:
    assert len(history) > 250
    assert contiguous(history, after=0)


@FEW
@given(share=st.floats(0, 1))
def test_any_cursor_resumes_with_the_event_that_follows_it(
    share: float, to_fake: Connection, history: list[Event]
) -> None:
    seen = round(share * (len(history) - 1))
    after = EventCursor(epoch=history[0].cursor.epoch, sequence=seen)
    assert follow(to_fake, after, through=len(history)) == history[seen:]


@FEW
@given(
    share=st.floats(0, 1),
    types=st.sets(st.sampled_from([event_pb2.EVENT_TYPE_PAUSED, event_pb2.EVENT_TYPE_RESUMED,
                                   event_pb2.EVENT_TYPE_OPERATION])),
    some=st.sets(st.integers(0, 2)),
)  # fmt: skip
def test_resumed_filters_leave_out_what_was_not_asked_for_and_nothing_else(
    share: float,
    types: set["event_pb2.EventType.ValueType"],
    some: set[int],
    to_fake: Connection,
    history: list[Event],
) -> None:
    instance_ids = sorted({event.instance_id for event in history if event.instance_id})
    wanted_ids = {instance_ids[number] for number in some}
    seen = round(share * (len(history) - 1))
    request = WatchEventsRequest(types=types, instance_ids=wanted_ids)
    request.after.CopyFrom(EventCursor(epoch=history[0].cursor.epoch, sequence=seen))
    events = []
    for event in watch(to_fake, request):
        if event.type == event_pb2.EVENT_TYPE_HEARTBEAT:
            assert event.cursor.sequence >= len(history)
            break
        events.append(event)
    of_the_stream = event_pb2.EVENT_TYPE_RESYNC
    assert events == [
        event
        for event in history[seen:]
        if event.type == of_the_stream
        or (
            (not types or event.type in types)
            and (not wanted_ids or not event.instance_id or event.instance_id in wanted_ids)
        )
    ]


def test_cursor_of_another_epoch_begins_with_a_gap(to_fake: Connection) -> None:
    event = first_event(to_fake, EventCursor(epoch="another", sequence=1))
    assert (event.type, event.detail) == (event_pb2.EVENT_TYPE_GAP, "another epoch")
    assert event.lost == 0


def test_cursor_of_the_future_begins_with_a_gap(to_fake: Connection, history: list[Event]) -> None:
    epoch = history[0].cursor.epoch
    event = first_event(to_fake, EventCursor(epoch=epoch, sequence=1 << 40))
    assert event.type == event_pb2.EVENT_TYPE_GAP


def test_snapshot_beside_a_cursor_is_sent_only_where_something_was_lost(
    to_fake: Connection, history: list[Event]
) -> None:
    now = cursor_now(to_fake)
    assert first_event(to_fake, now, snapshot=True).type == event_pb2.EVENT_TYPE_HEARTBEAT
    lost = WatchEventsRequest(after=EventCursor(epoch="another", sequence=1), snapshot=True)
    types = []
    for event in watch(to_fake, lost):
        types.append(event.type)
        if event.type == event_pb2.EVENT_TYPE_SNAPSHOT_END:
            break
    snapshot = [event_pb2.EVENT_TYPE_SNAPSHOT] * 3 + [event_pb2.EVENT_TYPE_SNAPSHOT_END]
    assert types == [event_pb2.EVENT_TYPE_GAP, *snapshot]


def test_stream_after_a_gap_goes_on_without_another(
    to_fake: Connection, history: list[Event]
) -> None:
    instance_id = next(event.instance_id for event in history if event.instance_id)
    stream = watch(to_fake, WatchEventsRequest(after=EventCursor(epoch="another")))
    gap = next(stream)
    toggle(to_fake, instance_id)
    events = [event for event, _ in zip(stream, range(12), strict=False)]
    stream.close()  # type: ignore[attr-defined]
    told = [event for event in events if event.type != event_pb2.EVENT_TYPE_HEARTBEAT]
    assert contiguous(told[:8], after=gap.cursor.sequence)


def test_expired_cursor_begins_with_a_gap_that_counts_what_was_lost(
    make_daemon: Callable[..., DaemonProcess], short_folder: Callable[[], Path]
) -> None:
    daemon = make_daemon(folder=short_folder())
    daemon.state_dir.mkdir(exist_ok=True)
    epoch = aged_log(daemon.state_dir / "events.sqlite", first=1000, last=1100)
    with daemon.start(), daemon.connect() as connection:
        now = cursor_now(connection).sequence
        gap = first_event(connection, EventCursor(epoch=epoch, sequence=500))
        assert (gap.type, gap.detail) == (event_pb2.EVENT_TYPE_GAP, "expired")
        assert gap.lost == now - 500
        assert gap.cursor.sequence == now
        kept = follow(connection, EventCursor(epoch=epoch, sequence=999), through=now)
        assert sequences(kept)[:101] == list(range(1000, 1101))


def aged_log(path: Path, *, first: int, last: int) -> str:
    """A log whose events before `first` have expired; gives its epoch."""
    log = EventLog(path)
    rows = []
    for number in range(first, last + 1):
        event = Event(type=event_pb2.EVENT_TYPE_STARTED)
        event.cursor.epoch, event.cursor.sequence = log.epoch, number
        rows.append((number, WatchEventsResponse(event=event).SerializeToString()))
    assert len(rows) < RETAINED_EVENTS
    log.append(rows)
    log.close()
    return log.epoch
