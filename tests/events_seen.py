"""Events as a test sees them: from a cursor on, so that none is missed and nothing is raced."""

from collections.abc import Callable

from virtrpc.v1 import event_pb2, operation_pb2
from virtrpc.v1.event_pb2 import Event, EventCursor
from virtrpc.v1.operation_pb2 import Operation

from tests.daemon import Connection

TIMEOUT_S = 60.0


def cursor_now(connection: Connection) -> EventCursor:
    """The place in the event log up to which everything has been delivered."""
    request = event_pb2.WatchEventsRequest(snapshot=True)
    stream = connection.events.WatchEvents(request, timeout=TIMEOUT_S)
    try:
        for response in stream:
            if response.event.type == event_pb2.EVENT_TYPE_SNAPSHOT_END:
                return response.event.cursor
    finally:
        stream.cancel()
    raise AssertionError("the stream ended before its snapshot was complete")


def events_after(
    connection: Connection,
    cursor: EventCursor,
    *,
    until: Callable[[Event], bool],
    timeout_s: float = TIMEOUT_S,
) -> list[Event]:
    """Events that follow a cursor, up to and including the first of which `until` is true."""
    request = event_pb2.WatchEventsRequest(after=cursor)
    request.heartbeat.FromMilliseconds(500)
    stream = connection.events.WatchEvents(request, timeout=timeout_s)
    seen = []
    try:
        for response in stream:
            if response.event.type != event_pb2.EVENT_TYPE_HEARTBEAT:
                seen.append(response.event)
            if until(response.event):
                return seen
    finally:
        stream.cancel()
    raise AssertionError(f"the stream ended after {seen}")


def wait_for_step(connection: Connection, cursor: EventCursor, verb: str) -> Operation:
    """A verb's operation, when it has announced its first step."""

    def is_of_the_verb(event: Event) -> bool:
        return event.operation.verb == verb

    operation = events_after(connection, cursor, until=is_of_the_verb)[-1].operation
    request = operation_pb2.WatchOperationRequest(operation_id=operation.operation_id)
    stream = connection.operations.WatchOperation(request, timeout=TIMEOUT_S)
    for response in stream:
        if response.operation.steps:
            break
    stream.cancel()
    return operation
