"""Destroys soft-deleted instances whose retention has passed: an operation like any other."""

import asyncio
import time

import structlog
from virtrpc.v1 import instance_pb2

from backends.errors import ContractError
from service.bindings import Bindings
from service.operations.runner import Operations
from service.truth import Truth
from service.verbs import Verb

_LOOK_S = 1.0
_TRY_AGAIN_S = 60.0
_CALLER = "daemon:reclaim"
log = structlog.get_logger()


async def reclaim(truth: Truth, operations: Operations, bindings: Bindings, destroy: Verb) -> None:
    """Runs until it is cancelled; what fails is tried again after a minute."""
    tried: dict[str, float] = {}
    while True:
        now_s = time.monotonic()
        tried = {i: at_s for i, at_s in tried.items() if now_s - at_s < _TRY_AGAIN_S}
        for instance_id in [i for i in _due(truth) if i not in tried]:
            if not await _destroy(instance_id, operations, bindings, destroy):
                tried[instance_id] = now_s
        await asyncio.sleep(_LOOK_S)


def _due(truth: Truth) -> list[str]:
    now_ns = time.time_ns()
    return [
        instance.instance_id
        for instance in truth.all()
        if instance.HasField("reclaim_at")
        and instance.reclaim_at.ToNanoseconds() <= now_ns
        and not instance.operation_id
    ]


async def _destroy(
    instance_id: str, operations: Operations, bindings: Bindings, destroy: Verb
) -> bool:
    method = bindings.backend(destroy)
    request = instance_pb2.DestroyInstanceRequest(
        instance_id=instance_id, destroy_disks=True, destroy_secrets=True
    )
    try:
        if method is not None:
            operation = await operations.start(destroy, request, method, caller=_CALLER)
            await operations.response(operation, instance_pb2.DestroyInstanceResponse)
    except ContractError as error:
        log.warning("not reclaimed yet", instance_id=instance_id, reason=str(error))
        return False
    return True
