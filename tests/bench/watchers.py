"""Event streams as a controller has them, each remembering what it saw."""

import asyncio
import time
from typing import TYPE_CHECKING, cast

import grpc
from google.protobuf.duration_pb2 import Duration
from virtrpc.v1 import event_pb2 as pb
from virtrpc.v1 import event_pb2_grpc
from virtrpc.v1.event_pb2 import EventType

if TYPE_CHECKING:
    from virtrpc.v1.event_pb2_grpc import EventServiceAsyncStub


class Watcher:
    """Reads one event stream and remembers the sequences it saw."""

    def __init__(self, stub: "EventServiceAsyncStub") -> None:
        self.sequences: list[int] = []
        self.last_size = 0
        self.last_at = 0.0
        """When the last one came, as time.perf_counter() has it."""
        request = pb.WatchEventsRequest(snapshot=True, heartbeat=Duration(seconds=3600))
        self._call = stub.WatchEvents(request)

    async def open(self) -> None:
        """Returns at the end of the snapshot: every later event is expected."""
        async for response in self._call:
            if response.event.type == EventType.EVENT_TYPE_SNAPSHOT_END:
                return

    async def follow(self) -> None:
        """Reads until the stream is closed."""
        async for response in self._call:
            self.sequences.append(response.event.cursor.sequence)
            self.last_size = response.ByteSize()
            self.last_at = time.perf_counter()

    def close(self) -> None:
        """Ends the stream."""
        self._call.cancel()

    def has_seen(self, sequence: int) -> bool:
        """Whether an event has come, or a later one."""
        return bool(self.sequences) and self.sequences[-1] >= sequence


async def opened(channel: grpc.aio.Channel, count: int) -> list[Watcher]:
    """So many watchers, all of which receive."""
    stub = _stub(channel)
    watchers = [Watcher(stub) for _ in range(count)]
    await asyncio.gather(*(watcher.open() for watcher in watchers))
    return watchers


async def last_sequence(channel: grpc.aio.Channel) -> int:
    """Sequence of the last event that was delivered, as a heartbeat tells it."""
    request = pb.WatchEventsRequest(heartbeat=Duration(nanos=100_000_000))
    call = _stub(channel).WatchEvents(request)
    async for response in call:
        if response.event.type == EventType.EVENT_TYPE_HEARTBEAT:
            call.cancel()
            sequence: int = response.event.cursor.sequence
            return sequence
    raise AssertionError("the stream ended without a heartbeat")


def _stub(channel: grpc.aio.Channel) -> "EventServiceAsyncStub":
    return cast("EventServiceAsyncStub", event_pb2_grpc.EventServiceStub(channel))
