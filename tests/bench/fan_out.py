"""Events to many watchers at a time: deliveries per second, losses, memory of a watcher.

The storm is shorter than a watcher's queue, so that none of them may be cut off
as too slow: whatever is missing was lost.
"""

import asyncio
import time
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, cast

import grpc
from google.protobuf.duration_pb2 import Duration
from virtrpc.v1 import event_pb2 as pb
from virtrpc.v1 import event_pb2_grpc, instance_pb2_grpc
from virtrpc.v1.instance_pb2 import PauseInstanceRequest, UnpauseInstanceRequest

from tests.bench.bare_grpc import STREAM, BareGrpc, stream_request
from tests.bench.places import fake_daemon, fake_spec, resident_bytes, spawn
from tests.bench.report import Row
from tests.daemon import DaemonProcess

if TYPE_CHECKING:
    from virtrpc.v1.event_pb2_grpc import EventServiceAsyncStub
    from virtrpc.v1.instance_pb2_grpc import InstanceServiceAsyncStub

_WATCHERS = 100
_INSTANCES, _CYCLES = 8, 12  # about 800 events
_IDLE_WATCHERS = 400
_TIMEOUT_S = 60.0


class Watcher:
    """Reads one event stream and remembers the sequences it saw."""

    def __init__(self, stub: "EventServiceAsyncStub") -> None:
        self.sequences: list[int] = []
        self.last_size = 0
        request = pb.WatchEventsRequest(snapshot=True, heartbeat=Duration(seconds=3600))
        self._call = stub.WatchEvents(request)

    async def open(self) -> None:
        """Returns at the end of the snapshot: every later event is expected."""
        async for response in self._call:
            if response.event.type == pb.EventType.EVENT_TYPE_SNAPSHOT_END:
                return

    async def follow(self, *, until: "asyncio.Future[int]") -> None:
        """Reads until the sequence is reached that `until` gives."""
        async for response in self._call:
            self.sequences.append(response.event.cursor.sequence)
            self.last_size = response.ByteSize()
            if until.done() and self.sequences[-1] >= until.result():
                return

    def close(self) -> None:
        """Ends the stream."""
        self._call.cancel()

    @property
    def lost(self) -> int:
        """Events missing between those that it saw."""
        return sum(after - before - 1 for before, after in pairwise(self.sequences))


def measure() -> Sequence[Row]:
    """A storm with watchers, and watchers at rest."""
    with fake_daemon() as daemon, BareGrpc(daemon.folder) as bare, daemon.connect() as connection:
        instance_ids = [spawn(connection, fake_spec(f"storm-{n}")) for n in range(_INSTANCES)]
        per_watcher = asyncio.run(_memory_of_a_watcher(daemon))
        delivered_per_s, watchers = asyncio.run(_storm(daemon, instance_ids))
        count, size = len(watchers[0].sequences), watchers[0].last_size
        bare_per_s = asyncio.run(_bare_storm(bare, count=count, size=size))
    return [
        Row(what=f"{count} events to {_WATCHERS} watchers", value=delivered_per_s, unit="/s",
            against=f"bare grpc.aio streams of {size} bytes", base=bare_per_s, at_least=0.5),
        Row(what="events lost", value=_lost(watchers), unit="", at_most=0),
        Row(what="memory of a watcher", value=per_watcher, unit="B", at_most=48 * 1024),
    ]  # fmt: skip


def _lost(watchers: Sequence[Watcher]) -> int:
    """Gaps, and what a watcher saw less of than the others."""
    most = max(len(watcher.sequences) for watcher in watchers)
    return sum(max(watcher.lost, most - len(watcher.sequences)) for watcher in watchers)


async def _storm(daemon: DaemonProcess, instance_ids: Sequence[str]) -> tuple[float, list[Watcher]]:
    """Deliveries per second, from the first operation to the last delivery."""
    async with grpc.aio.insecure_channel(daemon.address) as channel:
        watchers = await _watchers(channel, _WATCHERS)
        end: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        following = [asyncio.ensure_future(w.follow(until=end)) for w in watchers]
        started = time.perf_counter()
        await asyncio.gather(*(_pause_and_unpause(channel, i) for i in instance_ids))
        end.set_result(await _last_sequence(channel))
        # The last events may have come before it was known which are the last.
        late = [
            task
            for task, watcher in zip(following, watchers, strict=True)
            if not watcher.sequences or watcher.sequences[-1] < end.result()
        ]
        async with asyncio.timeout(_TIMEOUT_S):
            await asyncio.gather(*late)
        seconds = time.perf_counter() - started
        for watcher in watchers:
            watcher.close()
        await asyncio.gather(*following, return_exceptions=True)
    return sum(len(watcher.sequences) for watcher in watchers) / seconds, watchers


async def _memory_of_a_watcher(daemon: DaemonProcess) -> float:
    """Bytes that the daemon holds for each of many watchers at rest."""
    before = resident_bytes(daemon)
    async with grpc.aio.insecure_channel(daemon.address) as channel:
        watchers = await _watchers(channel, _IDLE_WATCHERS)
        grown = resident_bytes(daemon) - before
        for watcher in watchers:
            watcher.close()
    return grown / _IDLE_WATCHERS


async def _bare_storm(bare: BareGrpc, *, count: int, size: int) -> float:
    """Messages per second that grpc.aio carries to as many streams."""

    async def follow(stream: "grpc.aio.UnaryStreamMultiCallable[bytes, bytes]") -> None:
        async for _ in stream(stream_request(count=count, size=size)):
            pass

    async with grpc.aio.insecure_channel(bare.address) as channel:
        started = time.perf_counter()
        stream: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(STREAM)
        await asyncio.gather(*(follow(stream) for _ in range(_WATCHERS)))
        return _WATCHERS * count / (time.perf_counter() - started)


async def _watchers(channel: grpc.aio.Channel, count: int) -> list[Watcher]:
    stub = _events(channel)
    watchers = [Watcher(stub) for _ in range(count)]
    await asyncio.gather(*(watcher.open() for watcher in watchers))
    return watchers


async def _last_sequence(channel: grpc.aio.Channel) -> int:
    """Sequence of the last event that was delivered, as a heartbeat tells it."""
    call = _events(channel).WatchEvents(
        pb.WatchEventsRequest(heartbeat=Duration(nanos=100_000_000))
    )
    async for response in call:
        if response.event.type == pb.EventType.EVENT_TYPE_HEARTBEAT:
            call.cancel()
            sequence: int = response.event.cursor.sequence
            return sequence
    raise AssertionError("the stream ended without a heartbeat")


async def _pause_and_unpause(channel: grpc.aio.Channel, instance_id: str) -> None:
    stub = cast("InstanceServiceAsyncStub", instance_pb2_grpc.InstanceServiceStub(channel))
    for _ in range(_CYCLES):
        await stub.PauseInstance(PauseInstanceRequest(instance_id=instance_id))
        await stub.UnpauseInstance(UnpauseInstanceRequest(instance_id=instance_id))


def _events(channel: grpc.aio.Channel) -> "EventServiceAsyncStub":
    return cast("EventServiceAsyncStub", event_pb2_grpc.EventServiceStub(channel))
