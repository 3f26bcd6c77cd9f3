"""Controllers that make events: instances of the fake, and verbs on many of them at once."""

import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from virtrpc.v1 import event_pb2, instance_pb2, operation_pb2
from virtrpc.v1.event_pb2 import Event, EventCursor, WatchEventsRequest
from virtrpc.v1.operation_pb2 import Operation

from tests.daemon import Connection, DaemonProcess

TIMEOUT_S = 60.0


def spawn_request(
    instance_id: str, *, labels: dict[str, str] | None = None
) -> instance_pb2.SpawnInstanceRequest:
    """A small guest of the fake's own image."""
    request = instance_pb2.SpawnInstanceRequest(instance_id=instance_id)
    request.spec.flavor.vcpus, request.spec.flavor.memory_mib = 1, 96
    request.spec.image.image_id = "demo"
    request.spec.labels.update(labels or {})
    return request


def wait(connection: Connection, operation: Operation) -> Operation:
    """The operation when it has ended."""
    request = operation_pb2.WaitOperationRequest(operation_id=operation.operation_id)
    return connection.operations.WaitOperation(request, timeout=TIMEOUT_S)


def spawn(connection: Connection, *, labels: dict[str, str] | None = None) -> str:
    """A running instance; gives its id."""
    instance_id = str(uuid.uuid4())
    request = spawn_request(instance_id, labels=labels)
    operation = wait(connection, connection.instances.SpawnInstance(request, timeout=TIMEOUT_S))
    assert operation.state == operation_pb2.OPERATION_STATE_SUCCEEDED, operation
    return instance_id


def destroy(connection: Connection, instance_id: str) -> None:
    """Ends an instance and removes all of it."""
    connection.instances.DestroyInstance(
        instance_pb2.DestroyInstanceRequest(instance_id=instance_id, destroy_disks=True),
        timeout=TIMEOUT_S,
    )


def toggle(connection: Connection, instance_id: str) -> None:
    """Pauses and unpauses an instance: eight events, as long as they may be."""
    paused = instance_pb2.PauseInstanceRequest(instance_id=instance_id, request_id=_long_id())
    connection.instances.PauseInstance(paused, timeout=TIMEOUT_S)
    unpaused = instance_pb2.UnpauseInstanceRequest(instance_id=instance_id, request_id=_long_id())
    connection.instances.UnpauseInstance(unpaused, timeout=TIMEOUT_S)


def _long_id() -> str:
    return f"{uuid.uuid4()}{'-' * 92}"


def storm(daemon: DaemonProcess, instance_ids: Sequence[str], *, rounds: int) -> None:
    """Toggles many instances at once, each a few times."""

    def toggle_all_rounds(instance_id: str) -> None:
        with daemon.connect() as connection:
            for _ in range(rounds):
                toggle(connection, instance_id)

    with ThreadPoolExecutor(len(instance_ids)) as controllers:
        list(controllers.map(toggle_all_rounds, instance_ids))


def watch(
    connection: Connection, request: WatchEventsRequest, *, heartbeat_ms: int = 100
) -> Iterator[Event]:
    """Events of a stream, those of the stream itself too."""
    request.heartbeat.FromMilliseconds(heartbeat_ms)
    for response in connection.events.WatchEvents(request, timeout=TIMEOUT_S):
        yield response.event


def follow(connection: Connection, after: EventCursor, *, through: int) -> list[Event]:
    """Everything that follows a cursor, up to a sequence."""
    events = []
    for event in watch(connection, WatchEventsRequest(after=after)):
        if event.type != event_pb2.EVENT_TYPE_HEARTBEAT:
            events.append(event)
        if event.cursor.sequence >= through:
            return events
    raise AssertionError("the stream ended")


def sequences(events: Sequence[Event]) -> list[int]:
    """Their numbers."""
    return [event.cursor.sequence for event in events]


def contiguous(events: Sequence[Event], *, after: int) -> bool:
    """Whether every number comes once, in order, from the one that follows `after`."""
    return sequences(events) == list(range(after + 1, after + 1 + len(events)))
