"""Destroys soft-deleted instances whose retention has passed: an operation like any other."""

import time

from virtrpc.v1 import instance_pb2

from service.errands import Errand, keep_doing
from service.truth import Truth

CALLER = "daemon:reclaim"


async def reclaim(truth: Truth, destroy: Errand) -> None:
    """Runs until it is cancelled; what fails is tried again after a minute."""

    async def end(instance_id: str) -> bool:
        request = instance_pb2.DestroyInstanceRequest(
            instance_id=instance_id, destroy_disks=True, destroy_secrets=True
        )
        return await destroy.run(request)

    await keep_doing(lambda: _due(truth), end)


def _due(truth: Truth) -> list[str]:
    now_ns = time.time_ns()
    return [
        instance.instance_id
        for instance in truth.all()
        if instance.HasField("reclaim_at")
        and instance.reclaim_at.ToNanoseconds() <= now_ns
        and not instance.operation_id
    ]
