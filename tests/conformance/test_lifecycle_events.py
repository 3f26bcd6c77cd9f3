"""What happens to an instance arrives as events: in order, once, about the right instance."""

import uuid
from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from virtrpc.v1 import event_pb2, operation_pb2, types_pb2
from virtrpc.v1 import instance_pb2 as pb
from virtrpc.v1.event_pb2 import Event, EventType

from tests.conformance.conftest import Guest, boot_anew
from tests.daemon import Connection
from tests.events_seen import cursor_now, events_after
from tests.instances import TIMEOUT_S, destroyed, finished, small_spec, succeeded

CREATED = EventType.EVENT_TYPE_CREATED
STARTED = EventType.EVENT_TYPE_STARTED
STOPPED = EventType.EVENT_TYPE_STOPPED
PAUSED = EventType.EVENT_TYPE_PAUSED
RESUMED = EventType.EVENT_TYPE_RESUMED
REBOOTED = EventType.EVENT_TYPE_REBOOTED
DELETED = EventType.EVENT_TYPE_DELETED
LIFECYCLE = {CREATED, STARTED, STOPPED, PAUSED, RESUMED, REBOOTED, DELETED}
OPERATION = EventType.EVENT_TYPE_OPERATION
AT_ONCE = Duration(seconds=0)


def lifecycle(events: list[Event], instance_id: str) -> list[Event]:
    return [e for e in events if e.instance_id == instance_id and e.type in LIFECYCLE]


def kinds(events: list[Event]) -> list[str]:
    return [EventType.Name(event.type).removeprefix("EVENT_TYPE_") for event in events]


def events_of(connection: Connection, instance_id: str, call: Callable[[], object]) -> list[Event]:
    """Events from before a mutation of an instance up to the end of its operation."""
    cursor = cursor_now(connection)
    call()
    return events_after(
        connection,
        cursor,
        until=lambda event: event.instance_id == instance_id and event.operation.done,
    )


def test_whole_life_of_an_instance(connection: Connection, backend: str) -> None:
    instance_id = str(uuid.uuid4())
    spec = small_spec(backend=backend)
    cursor = cursor_now(connection)
    instances = connection.instances
    try:
        spawn = pb.SpawnInstanceRequest(instance_id=instance_id, spec=spec)
        succeeded(connection, instances.SpawnInstance(spawn, timeout=TIMEOUT_S))
        instances.PauseInstance(pb.PauseInstanceRequest(instance_id=instance_id))
        instances.UnpauseInstance(pb.UnpauseInstanceRequest(instance_id=instance_id))
        instances.PowerOffInstance(
            pb.PowerOffInstanceRequest(instance_id=instance_id, timeout=AT_ONCE)
        )
        instances.PowerOnInstance(pb.PowerOnInstanceRequest(instance_id=instance_id))
    finally:
        destroyed(connection, instance_id)
    events = events_after(
        connection,
        cursor,
        until=lambda event: event.operation.verb == "DestroyInstance" and event.operation.done,
    )
    told = lifecycle(events, instance_id)
    assert kinds(told) == [
        *("CREATED", "STARTED", "PAUSED", "RESUMED"),
        *("STOPPED", "STARTED", "STOPPED", "DELETED"),
    ]
    states = {
        STARTED: types_pb2.POWER_STATE_RUNNING,
        PAUSED: types_pb2.POWER_STATE_PAUSED,
        RESUMED: types_pb2.POWER_STATE_RUNNING,
        STOPPED: types_pb2.POWER_STATE_SHUTDOWN,
    }
    for event in told:
        assert event.instance_name == spec.name
        assert event.HasField("time")
        if event.type in states:
            assert event.power_state == states[event.type]
    assert {event.detail for event in told if event.type == STOPPED} == {"destroyed"}


def test_numbers_grow_by_one_and_times_do_not_go_back(
    connection: Connection, running_guest: Guest
) -> None:
    instance_id = running_guest.instance_id
    start = cursor_now(connection)
    events = events_of(
        connection,
        instance_id,
        lambda: connection.instances.PauseInstance(
            pb.PauseInstanceRequest(instance_id=instance_id), timeout=TIMEOUT_S
        ),
    )
    numbers = [event.cursor.sequence for event in events]
    assert numbers == list(range(start.sequence + 1, start.sequence + 1 + len(numbers)))
    assert {event.cursor.epoch for event in events} == {start.epoch}
    times = [event.time.ToNanoseconds() for event in events]
    assert times == sorted(times)


@pytest.mark.parametrize(
    ("verb", "fields", "expected"),
    [
        ("PauseInstance", {}, ["PAUSED"]),
        ("PowerOffInstance", {"timeout": AT_ONCE}, ["STOPPED"]),
        ("RebootInstance", {"type": pb.REBOOT_TYPE_HARD}, ["STOPPED", "STARTED"]),
        ("UnpauseInstance", {}, []),
        ("PowerOnInstance", {}, []),
    ],
)
def test_events_of_a_verb_come_between_those_of_its_operation(
    connection: Connection,
    running_guest: Guest,
    verb: str,
    fields: dict[str, Any],
    expected: list[str],
) -> None:
    """A verb that has nothing to do tells of nothing but its operation."""
    instance_id = running_guest.instance_id
    request = getattr(pb, f"{verb}Request")(instance_id=instance_id, **fields)
    call = getattr(connection.instances, verb)
    events = events_of(connection, instance_id, lambda: call(request, timeout=TIMEOUT_S))
    about = [event for event in events if event.instance_id == instance_id]
    assert kinds(lifecycle(about, instance_id)) == expected
    operations = [event.operation for event in about if event.type == OPERATION]
    assert [operation.state for operation in operations] == [
        operation_pb2.OPERATION_STATE_PENDING,
        operation_pb2.OPERATION_STATE_RUNNING,
        operation_pb2.OPERATION_STATE_SUCCEEDED,
    ]
    assert {operation.verb for operation in operations} == {verb}
    assert all(not operation.steps for operation in operations)
    assert all(not operation.HasField("result") for operation in operations)
    assert kinds(about)[0] == kinds(about)[-1] == "OPERATION"


def test_soft_reboot_is_told_as_reboot(connection: Connection, running_guest: Guest) -> None:
    instance_id = running_guest.instance_id
    boot_anew(connection, instance_id)
    request = pb.RebootInstanceRequest(
        instance_id=instance_id, type=pb.REBOOT_TYPE_SOFT, timeout=Duration(seconds=50)
    )
    events = events_of(
        connection,
        instance_id,
        lambda: connection.instances.RebootInstance(request, timeout=TIMEOUT_S),
    )
    told = kinds(lifecycle(events, instance_id))
    assert "REBOOTED" in told
    assert set(told) <= {"REBOOTED"}


def test_failed_spawn_takes_back_what_it_told(connection: Connection, backend: str) -> None:
    """Only on the fake can a spawn be made to fail; elsewhere one is refused before it begins."""
    spec = small_spec(backend=backend)
    if backend == "fake":
        spec.labels["fake/spawn_instance.start"] = "fail"
    else:
        spec.image.kernel_image_id = "missing"
    request = pb.SpawnInstanceRequest(instance_id=str(uuid.uuid4()), spec=spec)
    events = events_of(
        connection,
        request.instance_id,
        lambda: finished(
            connection, connection.instances.SpawnInstance(request, timeout=TIMEOUT_S)
        ),
    )
    told = kinds(lifecycle(events, request.instance_id))
    assert told == (["CREATED", "DELETED"] if backend == "fake" else [])
    assert events[-1].operation.state == operation_pb2.OPERATION_STATE_FAILED


def test_filters_keep_what_was_asked_for(connection: Connection, running_guest: Guest) -> None:
    instance_id = running_guest.instance_id
    cursor = cursor_now(connection)
    pause = pb.PauseInstanceRequest(instance_id=instance_id)
    connection.instances.PauseInstance(pause, timeout=TIMEOUT_S)
    unpause = pb.UnpauseInstanceRequest(instance_id=instance_id)
    connection.instances.UnpauseInstance(unpause, timeout=TIMEOUT_S)
    request = event_pb2.WatchEventsRequest(
        after=cursor, types=[PAUSED, RESUMED], instance_ids=[instance_id.upper()]
    )
    stream = connection.events.WatchEvents(request, timeout=TIMEOUT_S)
    assert kinds([next(stream).event, next(stream).event]) == ["PAUSED", "RESUMED"]
    stream.cancel()
