"""What has come of a stream, and how to ask for the rest: events, consoles, operations, images.

Pure bookkeeping over messages; `resume` does the calls.
"""

from __future__ import annotations

from collections.abc import Iterable

import grpc

from virtrpc.errors import made
from virtrpc.v1.console_pb2 import StreamConsoleOutputRequest, StreamConsoleOutputResponse
from virtrpc.v1.event_pb2 import (
    Event,
    EventCursor,
    EventType,
    WatchEventsRequest,
    WatchEventsResponse,
)
from virtrpc.v1.image_pb2 import DownloadImageRequest, DownloadImageResponse, Image
from virtrpc.v1.operation_pb2 import Operation, WatchOperationRequest, WatchOperationResponse
from virtrpc.v1.types_pb2 import Error


class EventSubscription:
    """WatchEvents, resumed after the last event that was passed on.

    A snapshot that broke off is asked for again as a whole: until its end, and
    after a GAP that calls for one, the cursor stays where it was.
    """

    ends_with_stream = True

    def __init__(
        self,
        *,
        after: EventCursor | None = None,
        snapshot: bool = False,
        instance_ids: Iterable[str] = (),
        types: Iterable[EventType.ValueType] = (),
        heartbeats: bool = False,
    ) -> None:
        self.ended = False
        self._request = WatchEventsRequest(
            after=after, snapshot=snapshot, instance_ids=instance_ids, types=types
        )
        self._heartbeats = heartbeats
        self._snapshot_due = snapshot and after is None

    def request(self) -> WatchEventsRequest:
        """The request with the cursor of the last event."""
        return self._request

    def accept(self, message: WatchEventsResponse) -> Iterable[Event]:
        """The event, unless it is a heartbeat that nobody wants."""
        event = message.event
        if event.type == EventType.EVENT_TYPE_GAP:
            self._snapshot_due = self._request.snapshot
        elif event.type == EventType.EVENT_TYPE_SNAPSHOT_END:
            self._snapshot_due = False
        if not self._snapshot_due and event.HasField("cursor"):
            self._request.after.CopyFrom(event.cursor)
        if self._heartbeats or event.type != EventType.EVENT_TYPE_HEARTBEAT:
            yield event


class ConsoleSubscription:
    """StreamConsoleOutput, resumed after the last byte that was passed on."""

    ends_with_stream = True

    def __init__(
        self, instance_id: str, *, offset: int | None = None, tail_bytes: int | None = None
    ) -> None:
        self.ended = False
        self._request = StreamConsoleOutputRequest(instance_id=instance_id, follow=True)
        if offset is not None:
            self._request.offset = offset
        elif tail_bytes is not None:
            self._request.tail_bytes = tail_bytes
        else:
            self._request.now = True

    def request(self) -> StreamConsoleOutputRequest:
        """The request with the offset after the last byte, as far as it is known."""
        return self._request

    def accept(self, message: StreamConsoleOutputResponse) -> Iterable[StreamConsoleOutputResponse]:
        """The message, unless it is a heartbeat."""
        self._request.log_id = message.log_id or self._request.log_id
        kind = message.WhichOneof("message")
        if kind == "heartbeat":
            self._place(message.heartbeat.end_offset)
            return
        if kind == "data":
            self._request.offset = message.data.offset + len(message.data.data)
        elif kind == "expired":
            self._request.offset = message.expired.end
        self.ended = kind == "moved" or self.ended
        yield message

    def _place(self, end_offset: int) -> None:
        """Turns a start relative to the end of the log into an offset."""
        start = self._request.WhichOneof("start")
        if start == "now":
            self._request.offset = end_offset
        elif start == "tail_bytes":
            self._request.offset = max(0, end_offset - self._request.tail_bytes)


class OperationSubscription:
    """WatchOperation, which begins anew with the operation as it stands."""

    ends_with_stream = False

    def __init__(self, operation_id: str) -> None:
        self.ended = False
        self._request = WatchOperationRequest(operation_id=operation_id)

    def request(self) -> WatchOperationRequest:
        """The request; there is nothing to resume from."""
        return self._request

    def accept(self, message: WatchOperationResponse) -> Iterable[Operation]:
        """The operation; the last one has `done`."""
        self.ended = message.operation.done
        yield message.operation


class ImageSubscription:
    """DownloadImage, resumed after the last byte that was passed on.

    Raises FailedPreconditionError where the image is another one by then.
    """

    ends_with_stream = True

    def __init__(self, image_id: str, *, offset: int = 0, expected_checksum: str = "") -> None:
        self.ended = False
        self._image: Image | None = None
        self._request = DownloadImageRequest(
            image_id=image_id, offset=offset, expected_checksum=expected_checksum
        )

    def request(self) -> DownloadImageRequest:
        """The request with the offset after the last byte, of the image that it belongs to."""
        return self._request

    def accept(self, message: DownloadImageResponse) -> Iterable[DownloadImageResponse]:
        """The message; the image only once."""
        if message.HasField("chunk"):
            self._request.offset = message.chunk.offset + len(message.chunk.data)
            yield message
        elif self._image is None:
            self._image = message.image
            self._request.expected_checksum = message.image.checksum
            yield message
        elif _identity(message.image) != _identity(self._image):
            raise made(_changed(message.image))


def _identity(image: Image) -> tuple[object, ...]:
    """What another image of the same id differs in; those put there by hand have no checksum."""
    return image.checksum, image.size_bytes, image.created_at.ToNanoseconds()


def _changed(image: Image) -> Error:
    return Error(
        code=grpc.StatusCode.FAILED_PRECONDITION.value[0],
        reason="IMAGE_CHANGED",
        message=f"image {image.image_id} is another one by now: begin again",
    )
