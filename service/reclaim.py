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
_CALLER = "daemon:reclaim"
log = structlog.get_logger()


async def reclaim(truth: Truth, operations: Operations, bindings: Bindings, destroy: Verb) -> None:
    """Runs until it is cancelled."""
    while True:
        now_ns = time.time_ns()
        for instance in list(truth.all()):
            due = instance.HasField("reclaim_at")
            if due and instance.reclaim_at.ToNanoseconds() <= now_ns and not instance.operation_id:
                await _destroy(instance.instance_id, operations, bindings, destroy)
        await asyncio.sleep(_LOOK_S)


async def _destroy(
    instance_id: str, operations: Operations, bindings: Bindings, destroy: Verb
) -> None:
    method = bindings.backend(destroy)
    request = instance_pb2.DestroyInstanceRequest(
        instance_id=instance_id, destroy_disks=True, destroy_secrets=True
    )
    try:
        if method is not None:
            operation = await operations.start(destroy, request, method, caller=_CALLER)
            await operations.outcome(operation)
    except ContractError as error:
        log.warning("not reclaimed yet", instance_id=instance_id, reason=str(error))
