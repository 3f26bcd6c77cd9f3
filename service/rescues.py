"""Instances that are in rescue for too long boot their own disks again.

By operations like any other, so nothing is done to an instance that something else
is just done to.
"""

import asyncio
import time
from concurrent.futures import Future

from virtrpc.v1 import instance_pb2

from service.errands import Errand, keep_doing
from service.truth import Truth

CALLER = "daemon:rescues"


class Rescues:
    """Ends rescues."""

    def __init__(self, truth: Truth, unrescue: Errand) -> None:
        self._truth = truth
        self._unrescue = unrescue
        self._loop = asyncio.get_running_loop()

    def due(self, *, timeout_s: float) -> list[str]:
        """Those in rescue for so long that nothing else is done to, ordered by id.

        Callable from any thread.
        """
        before_ns = time.time_ns() - int(timeout_s * 1e9)
        rescued = [i for i in self._truth.all() if i.rescued and not i.operation_id]
        return sorted(i.instance_id for i in rescued if i.rescued_at.ToNanoseconds() <= before_ns)

    async def watch(self, *, timeout_s: float) -> None:
        """Ends those that are due, until it is cancelled."""
        await keep_doing(lambda: self.due(timeout_s=timeout_s), self.end)

    async def end(self, instance_id: str) -> bool:
        """Unrescues an instance; False where that cannot be done now."""
        return await self._unrescue.run(
            instance_pb2.UnrescueInstanceRequest(instance_id=instance_id)
        )

    def begin_to_end(self, instance_id: str) -> "Future[bool]":
        """As `end`, for a worker thread, which may wait for what it is given."""
        return asyncio.run_coroutine_threadsafe(self.end(instance_id), self._loop)
