"""Instances that are in rescue for too long boot their own disks again.

By operations like any other, so nothing is done to an instance that something else
is just done to.
"""

import asyncio
import time
from concurrent.futures import Future

import structlog
from virtrpc.v1 import instance_pb2

from backends.errors import ContractError
from service.bindings import Bindings
from service.operations.runner import Operations
from service.truth import Truth
from service.verbs import Verb

_LOOK_S = 1.0
_TRY_AGAIN_S = 60.0
_CALLER = "daemon:rescues"
log = structlog.get_logger()


class Rescues:
    """Ends rescues."""

    def __init__(
        self, *, truth: Truth, operations: Operations, bindings: Bindings, unrescue: Verb
    ) -> None:
        self._truth = truth
        self._operations = operations
        self._bindings = bindings
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
        tried: dict[str, float] = {}
        while True:
            now_s = time.monotonic()
            tried = {i: at_s for i, at_s in tried.items() if now_s - at_s < _TRY_AGAIN_S}
            for instance_id in self.due(timeout_s=timeout_s):
                if instance_id not in tried and not await self.end(instance_id):
                    tried[instance_id] = now_s
            await asyncio.sleep(_LOOK_S)

    async def end(self, instance_id: str) -> bool:
        """Unrescues an instance; False where that cannot be done now."""
        method = self._bindings.backend(self._unrescue)
        if method is None:
            return False
        request = instance_pb2.UnrescueInstanceRequest(instance_id=instance_id)
        try:
            operation = await self._operations.start(
                self._unrescue, request, method, caller=_CALLER
            )
            await self._operations.response(operation, instance_pb2.UnrescueInstanceResponse)
        except ContractError as error:
            log.warning("not unrescued yet", instance_id=instance_id, reason=str(error))
            return False
        return True

    def begin_to_end(self, instance_id: str) -> "Future[bool]":
        """As `end`, for a worker thread, which may wait for what it is given."""
        return asyncio.run_coroutine_threadsafe(self.end(instance_id), self._loop)
