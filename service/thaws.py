"""Guests whose filesystems are frozen for too long are thawed, whoever froze them.

By operations like any other; one that cannot be thawed is asked again and again, the others
meanwhile.
"""

import asyncio
import time

from virtrpc.v1 import instance_pb2
from virtrpc.v1.types_pb2 import PowerState

from service.errands import Errand
from service.truth import Truth

CALLER = "daemon:thaws"
_LOOK_S = 0.5
_SHORTEST_PAUSE_S, _LONGEST_PAUSE_S = 5.0, 300.0


class Thaws:
    """Thaws guests."""

    def __init__(self, truth: Truth, unquiesce: Errand) -> None:
        self._truth = truth
        self._unquiesce = unquiesce
        self._trying: set[str] = set()

    async def watch(self) -> None:
        """Thaws those that are due, until it is cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                for instance_id in self._due() - self._trying:
                    self._trying.add(instance_id)
                    group.create_task(self._until_thawed(instance_id))
                await asyncio.sleep(_LOOK_S)

    def _due(self) -> set[str]:
        now_ns = time.time_ns()
        return {
            instance.instance_id
            for instance in self._truth.all()
            if instance.HasField("thaw_at")
            and instance.power_state == PowerState.POWER_STATE_RUNNING
            and instance.thaw_at.ToNanoseconds() <= now_ns
        }

    async def _until_thawed(self, instance_id: str) -> None:
        request = instance_pb2.UnquiesceInstanceRequest(instance_id=instance_id)
        pause_s = _SHORTEST_PAUSE_S
        try:
            while instance_id in self._due() and not await self._unquiesce.run(request):
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
        finally:
            self._trying.discard(instance_id)
