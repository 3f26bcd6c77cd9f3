"""Lanes: one mutation at a time of each instance, image or aggregate.

    claim ──free──▶ holds it ──leave──▶ the next of those that wait
      ╰───taken───▶ refused; one that pre-empts waits, and has the holder cancelled

A holder that hangs in its hypervisor notices no cancel: after a while the machine
of its instance is ended, which is what the one that waits is about to do anyway.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from backends.errors import BusyError
from service.operations.operation import LiveOperation
from service.verbs import HOST_LANE

PATIENCE_S = 5.0


class Lanes:
    """Who has which lane, and who waits for it. Event loop only.

    `break_off` makes calls return that hang about an instance's machine.
    """

    def __init__(self, break_off: Callable[[str], Awaitable[None]]) -> None:
        self._break_off = break_off
        self._queues: dict[str, deque[LiveOperation]] = {}

    def claim(self, live: LiveOperation) -> None:
        """Takes a free lane, or a place behind its holder; raises BusyError."""
        queue = self._queues.get(live.lane)
        if queue and not live.verb.options.preempts:
            raise BusyError(
                f"{queue[0].verb.name} is running",
                reason=f"{_kind(live.lane)}_BUSY",
                metadata={"operation_id": queue[0].operation_id, "verb": queue[0].verb.name},
            )
        self.readmit(live)

    def readmit(self, live: LiveOperation) -> None:
        """The place that an operation had in an earlier run of the daemon, in that order."""
        if live.lane:
            self._queues.setdefault(live.lane, deque()).append(live)

    def leave(self, live: LiveOperation) -> None:
        """Gives the lane, or the place, up."""
        queue = self._queues.get(live.lane)
        if queue is not None and live in queue:
            queue.remove(live)
            if not queue:
                del self._queues[live.lane]

    async def turn(self, live: LiveOperation) -> None:
        """Returns when the lane is the operation's own."""
        while live.lane and (holder := self._queues[live.lane][0]) is not live:
            await self._let_pass(holder, live)

    async def _let_pass(self, holder: LiveOperation, waiting: LiveOperation) -> None:
        if not holder.verb.options.preempts:
            holder.cancel()
        try:
            async with asyncio.timeout(PATIENCE_S):
                await holder.answered.wait()
        except TimeoutError:
            if not holder.verb.options.preempts:
                holder.broken_off = True
                await self._break_off(waiting.lane)
            return
        if not holder.ended.is_set():  # it waits for the hypervisor, and so does who comes after
            waiting.answered.set()
            await holder.ended.wait()
            waiting.answered.clear()


def _kind(lane: str) -> str:
    """ "HOST", "IMAGE", "AGGREGATE", …; lanes of instances are plain ids."""
    field, named, _ = lane.partition(":")
    if lane == HOST_LANE:
        return "HOST"
    return field.removesuffix("_id").upper() if named else "INSTANCE"
