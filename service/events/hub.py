"""The hub: numbers events, has them written, hands them to every watcher.

    publish ─▶ pending ─▶ event log ─▶ queues of watchers ─▶ streams
              (batched)                 (bounded; too slow = cut off)

An event is serialised once, for the log and all watchers.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from virtrpc.v1 import event_pb2

from service.errors import OverloadedError, ShuttingDownError
from service.events.log import EventLog

T = TypeVar("T")
QUEUE_EVENTS = 1024
_REPLAY_EVENTS = 512


@dataclass(frozen=True)
class Published:
    """An event with its number and its bytes (a WatchEventsResponse)."""

    sequence: int
    event: event_pb2.Event
    response: bytes


class TooSlowError(OverloadedError):
    """The watcher did not keep up; its cursor is in the metadata."""

    reason = "WATCHER_TOO_SLOW"


class Watcher:
    """One watcher's queue, from the moment it is made. Use it as a context."""

    def __init__(self, hub: "Hub", *, wants: Callable[[event_pb2.Event], bool]) -> None:
        self._hub = hub
        self._wants = wants
        self._queue: deque[Published] = deque()
        self._wake = asyncio.Event()
        self._overrun = False

    def offer(self, published: Published) -> None:
        """Takes an event in, or marks the watcher as too slow."""
        if self._overrun or not self._wants(published.event):
            return
        if len(self._queue) >= QUEUE_EVENTS:
            self._overrun = True
        else:
            self._queue.append(published)
        self._wake.set()

    def wake(self) -> None:
        """Makes `next` look again."""
        self._wake.set()

    async def next(self, *, sent: int, timeout_s: float) -> Published | None:
        """The next event; None when none came in time.

        `sent` is the sequence of the last one sent. Raises TooSlowError or
        ShuttingDownError, both with the cursor to resume from.
        """
        while not self._queue:
            if self._overrun:
                raise TooSlowError("the watcher fell behind", metadata=self._hub.cursor(sent))
            if self._hub.closing:
                raise ShuttingDownError("the daemon stops", metadata=self._hub.cursor(sent))
            self._wake.clear()
            try:
                await asyncio.wait_for(self._wake.wait(), timeout_s)
            except TimeoutError:
                return None
        return self._queue.popleft()

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

    def publish(self, event: event_pb2.Event) -> None:
        """Numbers an event and sends it on its way."""
        self.sequence += 1
        event.cursor.epoch = self.epoch
        event.cursor.sequence = self.sequence
        if not event.HasField("time"):
            event.time.GetCurrentTime()
        response = event_pb2.WatchEventsResponse(event=event).SerializeToString()
        self._pending.append(Published(self.sequence, event, response))
        if self._pump is None:
            self._pump = asyncio.ensure_future(self._deliver())

    def cursor(self, sequence: int) -> dict[str, str]:
        """A cursor as metadata of an error."""
        return {"epoch": self.epoch, "sequence": str(sequence)}

    async def oldest(self) -> int:
        """Sequence of the oldest event that can be replayed."""
        return await self._in_thread(self._log.oldest)

    async def replay(self, *, after: int, through: int) -> AsyncIterator[Published]:
        """Logged events that follow one sequence, up to another one that was delivered."""
        while after < through:
            rows = await self._in_thread(partial(self._log.read, after=after, limit=_REPLAY_EVENTS))
            for sequence, response in rows:
                if sequence <= through:
                    event = event_pb2.WatchEventsResponse.FromString(response).event
                    yield Published(sequence, event, response)
                after = sequence
            if not rows:
                return

    async def close(self) -> None:
        """Delivers what is pending and ends every watcher's stream."""
        if self._pump is not None:
            await self._pump
        self.closing = True
        for watcher in self.watchers:
            watcher.wake()
        self._thread.shutdown()
        self._log.close()

    async def _deliver(self) -> None:
        while self._pending:
            batch = list(self._pending)
            self._pending.clear()
            rows = [(published.sequence, published.response) for published in batch]
            await self._in_thread(partial(self._log.append, rows))
            for published in batch:
                self.delivered = published.sequence
                for watcher in self.watchers:
                    watcher.offer(published)
        self._pump = None

    async def _in_thread(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)
