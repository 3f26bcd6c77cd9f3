"""Event streams over restarts of the daemon: the same epoch, every number once."""

from collections.abc import Callable

import grpc
import pytest
from virtrpc.v1 import event_pb2
from virtrpc.v1.event_pb2 import EventCursor, WatchEventsRequest

from tests.daemon import DaemonProcess
from tests.events.controllers import contiguous, follow, spawn, storm, toggle, watch
from tests.events_seen import cursor_now
from tests.refusals import refusal_of


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_cursor_outlives_the_daemon(end: str, make_daemon: Callable[..., DaemonProcess]) -> None:
    daemon = make_daemon().start()
    with daemon.connect() as connection:
        begin = cursor_now(connection)
        for instance_id in (spawn(connection), spawn(connection)):
            toggle(connection, instance_id)
        before = cursor_now(connection)
    getattr(daemon, end)()
    with daemon.start().connect() as connection:
        toggle(connection, spawn(connection))
        now = cursor_now(connection)
        assert now.epoch == begin.epoch
        events = follow(connection, begin, through=now.sequence)
    assert contiguous(events, after=begin.sequence)
    types = [event.type for event in events if event.cursor.sequence > before.sequence]
    assert event_pb2.EVENT_TYPE_GAP not in types
    assert types.count(event_pb2.EVENT_TYPE_RESYNC) == 1
    connected = types.index(event_pb2.EVENT_TYPE_HYPERVISOR_CONNECTED)
    assert types[connected + 1] == event_pb2.EVENT_TYPE_RESYNC


def test_watchers_cursor_of_a_killed_daemon_is_good_in_the_middle_of_a_storm(
    make_daemon: Callable[..., DaemonProcess],
) -> None:
    daemon = make_daemon().start()
    with daemon.connect() as connection:
        instance_ids = [spawn(connection) for _ in range(4)]
        last = cursor_now(connection)
        begin = last.sequence
        seen = []
        stream = watch(connection, WatchEventsRequest(after=last))
        storm(daemon, instance_ids, rounds=4)
        with pytest.raises(grpc.RpcError):
            for event in stream:
                last = event.cursor
                if event.type != event_pb2.EVENT_TYPE_HEARTBEAT:
                    seen.append(event)
                if len(seen) == 60:
                    daemon.kill()
    with daemon.start().connect() as connection:
        now = cursor_now(connection)
        seen += follow(connection, last, through=now.sequence)
    assert contiguous(seen, after=begin)


def test_stop_ends_streams_with_the_cursor_to_go_on_from(
    make_daemon: Callable[..., DaemonProcess],
) -> None:
    daemon = make_daemon().start()
    with daemon.connect() as connection:
        begin = cursor_now(connection)
        seen = []
        stream = watch(connection, WatchEventsRequest(after=begin), heartbeat_ms=60_000)
        toggle(connection, spawn(connection))
        with pytest.raises(grpc.RpcError) as ended:
            for event in stream:
                seen.append(event)
                if len(seen) == 5:
                    assert daemon.process is not None
                    daemon.process.terminate()
        refusal = refusal_of(ended.value)
    assert daemon.wait() == 0
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN")
    cursor = EventCursor(
        epoch=refusal.metadata["epoch"], sequence=int(refusal.metadata["sequence"])
    )
    assert cursor == seen[-1].cursor
    with daemon.start().connect() as connection:
        now = cursor_now(connection)
        seen += follow(connection, cursor, through=now.sequence)
    assert contiguous(seen, after=begin.sequence)


def test_damaged_event_log_is_another_epoch_and_not_a_crash(
    make_daemon: Callable[..., DaemonProcess],
) -> None:
    daemon = make_daemon().start()
    with daemon.connect() as connection:
        spawn(connection)
        before = cursor_now(connection)
    daemon.stop()
    with (daemon.state_dir / "events.sqlite").open("r+b") as log:
        log.write(b"\0" * 4096)
    with daemon.start().connect() as connection:
        stream = watch(connection, WatchEventsRequest(after=before, snapshot=True))
        gap = next(stream)
        assert (gap.type, gap.detail) == (event_pb2.EVENT_TYPE_GAP, "another epoch")
        assert gap.cursor.epoch != before.epoch
        assert next(stream).type == event_pb2.EVENT_TYPE_SNAPSHOT_END
        stream.close()  # type: ignore[attr-defined]
