"""Ages out unused images at an interval: an operation like any other."""

import asyncio

from virtrpc.v1 import image_pb2

from service.errands import Errand
from service.operations.runner import Operations

CALLER = "daemon:image-cache"


async def age_images(operations: Operations, manage: Errand, *, interval_s: float) -> None:
    """Runs until it is cancelled."""
    while manage.offered:
        await asyncio.sleep(interval_s)
        await operations.reachable.wait()
        await manage.run(image_pb2.ManageImageCacheRequest())
