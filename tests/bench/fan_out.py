"""Events to many watchers at a time: deliveries per second, losses, memory of a watcher.

A storm is shorter than a watcher's queue, so that none of them may be cut off as
too slow: whatever is missing was lost. It is timed from the first operation that
makes events to the last delivery.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, cast

import grpc
from virtrpc.v1 import instance_pb2_grpc
from virtrpc.v1.instance_pb2 import PauseInstanceRequest, UnpauseInstanceRequest

from tests.bench.bare_grpc import STREAM, BareGrpc, stream_request
from tests.bench.places import fake_daemon, fake_spec, resident_bytes, spawn
from tests.bench.report import Row
from tests.bench.watchers import Watcher, last_sequence, opened
from tests.daemon import DaemonProcess

if TYPE_CHECKING:
    from virtrpc.v1.instance_pb2_grpc import InstanceServiceAsyncStub

_WATCHERS, _IDLE_WATCHERS = 100, 400
_INSTANCES, _CYCLES = 8, 12  # about 800 events
_ROUNDS = 3
_TIMEOUT_S = 60.0
_LOOK_S = 0.005


@dataclass(frozen=True)
class _Storm:
    """What became of one storm."""

    per_s: float
    events: int
    event_bytes: int
    lost: int


def measure() -> Sequence[Row]:
    """Storms in turns with bare streams, and watchers at rest."""
    with fake_daemon() as daemon, BareGrpc(daemon.folder) as bare, daemon.connect() as connection:
        instance_ids = [spawn(connection, fake_spec(f"storm-{n}")) for n in range(_INSTANCES)]
        return asyncio.run(_measure(daemon, bare, instance_ids))


async def _measure(
    daemon: DaemonProcess, bare: BareGrpc, instance_ids: Sequence[str]
) -> Sequence[Row]:
    async with (
        grpc.aio.insecure_channel(daemon.address) as channel,
        grpc.aio.insecure_channel(bare.address) as bare_channel,
    ):
        per_watcher = await _memory_of_a_watcher(daemon, channel)
        storms, bare_per_s = [], []
        for _ in range(_ROUNDS):
            storm = await _storm(channel, instance_ids)
            storms.append(storm)
            bare_per_s.append(await _bare_storm(bare_channel, storm))
    last = storms[-1]
    return [
        Row(what=f"{last.events} events to {_WATCHERS} watchers",
            value=median(storm.per_s for storm in storms), unit="/s",
            against=f"bare grpc.aio streams of {last.event_bytes} bytes",
            base=median(bare_per_s), at_least=0.5),
        Row(what="events lost", value=sum(storm.lost for storm in storms), unit="", at_most=0),
        Row(what="memory of a watcher", value=per_watcher, unit="B", at_most=64 * 1024),
    ]  # fmt: skip


async def _storm(channel: grpc.aio.Channel, instance_ids: Sequence[str]) -> _Storm:
    watchers = await opened(channel, _WATCHERS)
    first = await last_sequence(channel)
    following = [asyncio.ensure_future(watcher.follow()) for watcher in watchers]
    started = time.perf_counter()
    await asyncio.gather(*(_pause_and_unpause(channel, i) for i in instance_ids))
    last = await last_sequence(channel)
    await _all_have_seen(watchers, last)
    seconds = max(watcher.last_at for watcher in watchers) - started
    for watcher in watchers:
        watcher.close()
    await asyncio.gather(*following, return_exceptions=True)
    return _Storm(
        per_s=sum(len(watcher.sequences) for watcher in watchers) / seconds,
        events=last - first,
        event_bytes=watchers[0].last_size,
        lost=sum(_lost(watcher, first, last) for watcher in watchers),
    )


async def _all_have_seen(watchers: Sequence[Watcher], sequence: int) -> None:
    """Returns when every watcher has; or after a long time, to count what is missing."""
    deadline = time.perf_counter() + _TIMEOUT_S
    while time.perf_counter() < deadline:
        if all(watcher.has_seen(sequence) for watcher in watchers):
            return
        await asyncio.sleep(_LOOK_S)


def _lost(watcher: Watcher, first: int, last: int) -> int:
    """Events after `first`, up to `last`, that a watcher did not see."""
    return len(set(range(first + 1, last + 1)).difference(watcher.sequences))


async def _memory_of_a_watcher(daemon: DaemonProcess, channel: grpc.aio.Channel) -> float:
    """Bytes that the daemon holds for each of many watchers at rest."""
    before = resident_bytes(daemon)
    watchers = await opened(channel, _IDLE_WATCHERS)
    grown = resident_bytes(daemon) - before
    for watcher in watchers:
        watcher.close()
    return grown / _IDLE_WATCHERS


async def _bare_storm(channel: grpc.aio.Channel, like: _Storm) -> float:
    """Messages per second that grpc.aio carries to as many streams."""
    stream: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(STREAM)

    async def follow() -> None:
        async for _ in stream(stream_request(count=like.events, size=like.event_bytes)):
            pass

    started = time.perf_counter()
    await asyncio.gather(*(follow() for _ in range(_WATCHERS)))
    return _WATCHERS * like.events / (time.perf_counter() - started)


async def _pause_and_unpause(channel: grpc.aio.Channel, instance_id: str) -> None:
    stub = cast("InstanceServiceAsyncStub", instance_pb2_grpc.InstanceServiceStub(channel))
    for _ in range(_CYCLES):
        await stub.PauseInstance(PauseInstanceRequest(instance_id=instance_id))
        await stub.UnpauseInstance(UnpauseInstanceRequest(instance_id=instance_id))
