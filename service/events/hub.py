"""The hub: numbers events, has them written, hands them to every watcher.

    publish ─▶ pending ─▶ event log ─▶ queues of watchers ─▶ streams
              (batched)                 (bounded; too slow = cut off)

An event is serialised once, for the log and all watchers. Where the log fails
(full, damaged), it begins anew under another epoch, and every watcher is sent away
with its cursor: who comes back with it gets a GAP.
"""

import asyncio
import sqlite3
from collections import deque
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import structlog
from virtrpc.v1 import event_pb2

from backends.errors import UnreachableError
from service.errors import OverloadedError, ShuttingDownError
from service.events.log import EventLog

T = TypeVar("T")
QUEUE_EVENTS = 1024
_REPLAY_EVENTS = 512
log = structlog.get_logger()


@dataclass(frozen=True)
class Published:
    """An event with its number and its bytes (a WatchEventsResponse)."""

    sequence: int
    event: event_pb2.Event
    response: bytes


class TooSlowError(OverloadedError):
    """The watcher did not keep up; its cursor is in the metadata."""

    reason = "WATCHER_TOO_SLOW"


class LogLostError(UnreachableError):
    """The event log began anew under another epoch."""

    reason = "EVENT_LOG_LOST"


class Watcher:
    """One watcher's queue, from the moment it is made. Use it as a context."""

    def __init__(self, hub: "Hub", *, wants: Callable[[event_pb2.Event], bool]) -> None:
        self.epoch = hub.epoch
        """Of all numbers that it is told."""
        self._hub = hub
        self._wants = wants
        self._queue: deque[Published] = deque()
        self._wake = asyncio.Event()
        self._overrun = False

    def offer(self, published: Published) -> None:
        """Takes an event in, or marks the watcher as too slow: the log has what it misses."""
        if self._overrun or not self._wants(published.event):
            return
        if len(self._queue) >= QUEUE_EVENTS:
            self._overrun = True
            self._queue.clear()
        else:
            self._queue.append(published)
        self._wake.set()

    def wake(self) -> None:
        """Makes `next` look again."""
        self._wake.set()

    async def next(self, *, sent: int, timeout_s: float) -> Published | None:
        """The next event; None when none came in time.

        `sent` is the sequence of the last one sent. Raises TooSlowError,
        LogLostError or ShuttingDownError, each with the cursor to resume from.
        """
        while True:
            if self.epoch != self._hub.epoch:
                raise LogLostError("the event log began anew", metadata=self._cursor(sent))
            if self._queue:
                return self._queue.popleft()
            if self._overrun:
                raise TooSlowError("the watcher fell behind", metadata=self._cursor(sent))
            if self._hub.closing:
                raise ShuttingDownError("the daemon stops", metadata=self._cursor(sent))
            self._wake.clear()
            try:
                async with asyncio.timeout(timeout_s):
                    await self._wake.wait()
            except TimeoutError:
                if not self._wake.is_set():  # both may happen at once
                    return None

    async def replay(self, *, after: int, through: int) -> AsyncIterator[Published]:
        """Logged events that follow one sequence, up to another one that was delivered.

        Raises TooSlowError where they expire sooner than they are taken.
        """
        while after < through:
            rows = await self._hub.logged(after=after)
            if self.epoch != self._hub.epoch:
                raise LogLostError("the event log began anew", metadata=self._cursor(after))
            if self._hub.closing:
                raise ShuttingDownError("the daemon stops", metadata=self._cursor(after))
            if not rows or rows[0][0] != after + 1:
                raise TooSlowError("events expired meanwhile", metadata=self._cursor(after))
            for sequence, response in rows[: through - after]:
                event = event_pb2.WatchEventsResponse.FromString(response).event
                yield Published(sequence, event, response)
            after = rows[-1][0]

    def _cursor(self, sequence: int) -> dict[str, str]:
        """A cursor as metadata of an error."""
        return {"epoch": self.epoch, "sequence": str(sequence)}

    def __enter__(self) -> "Watcher":
        """Begins to receive."""
        self._hub.watchers.add(self)
        return self

    def __exit__(self, *_: object) -> None:
        """Receives no more."""
        self._hub.watchers.discard(self)


class Hub:
    """All events of the host. Event loop only."""

    def __init__(self, log: EventLog) -> None:
        self.watchers: set[Watcher] = set()
        self.closing = False
        self.epoch = log.epoch
        self.sequence = log.last_sequence
        """Last number given out."""
        self.delivered = log.last_sequence
        """Last number that watchers have been offered."""
        self._log = log
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="event-log")
        self._pending: deque[Published] = deque()
        self._pump: asyncio.Task[None] | None = None
        self._log_failed = False

    def publish(self, event: event_pb2.Event) -> None:
        """Numbers an event and sends it on its way."""
        self.sequence += 1
        event.cursor.epoch = self.epoch
        event.cursor.sequence = self.sequence
        if not event.HasField("time"):
            event.time.GetCurrentTime()
        response = event_pb2.WatchEventsResponse(event=event).SerializeToString()
        self._pending.append(Published(self.sequence, event, response))
        self._start_pump()

    async def oldest(self) -> int:
        """Sequence of the oldest event that can be replayed."""
        return await self._in_log(self._log.oldest, otherwise=0)

    async def logged(self, *, after: int) -> list[tuple[int, bytes]]:
        """Some of the logged events that follow a sequence."""
        read = partial(self._log.read, after=after, limit=_REPLAY_EVENTS)
        return await self._in_log(read, otherwise=[])

    async def reached(self, sequence: int) -> None:
        """Waits until watchers have been offered everything up to a number given out."""
        epoch = self.epoch
        while self._pump is not None and self.delivered < sequence and self.epoch == epoch:
            await asyncio.shield(self._pump)

    async def close(self) -> None:
        """Delivers what is pending and ends every watcher's stream."""
        if self._pump is not None:
            await self._pump
        self.closing = True
        for watcher in self.watchers:
            watcher.wake()

    async def release(self) -> None:
        """Writes what came after the end of the streams, and closes the log."""
        if self._pump is not None:
            await self._pump
        self._thread.shutdown()
        self._log.close()

    async def _deliver(self) -> None:
        while self._pending or self._log_failed:
            batch = list(self._pending)
            self._pending.clear()
            if not await self._write(batch):
                await self._begin_anew(batch)
                continue
            for published in batch:
                self.delivered = published.sequence
                for watcher in self.watchers:
                    watcher.offer(published)
        self._pump = None

    async def _write(self, batch: list[Published]) -> bool:
        """Whether the log has the events now."""
        if not self._log_failed:
            rows = [(published.sequence, published.response) for published in batch]
            await self._in_log(partial(self._log.append, rows), otherwise=None)
        return not self._log_failed

    async def _begin_anew(self, unsent: list[Published]) -> None:
        """Another log, another epoch: what was not delivered yet is numbered again in it."""
        unsent = [*unsent, *self._pending]
        self._pending.clear()
        await asyncio.get_running_loop().run_in_executor(self._thread, self._log.begin_anew)
        self._log_failed = False
        self.epoch, self.sequence, self.delivered = self._log.epoch, 0, 0
        for published in unsent:
            self.publish(published.event)
        for watcher in self.watchers:
            watcher.wake()

    async def _in_log(self, call: Callable[[], T], *, otherwise: T) -> T:
        """What a call on the log gives; where it fails, the log begins anew."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, call)
        except sqlite3.Error as error:
            log.error("the event log failed and begins anew", error=str(error))
            self._log_failed = True
            self._start_pump()
            return otherwise

    def _start_pump(self) -> None:
        if self._pump is None:
            self._pump = asyncio.ensure_future(self._deliver())
