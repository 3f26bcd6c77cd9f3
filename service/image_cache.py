"""Ages out unused images at an interval: an operation like any other."""

import asyncio

import structlog
from virtrpc.v1 import image_pb2

from backends.errors import ContractError
from service.bindings import Bindings
from service.operations.runner import Operations
from service.verbs import Verb

_CALLER = "daemon:image-cache"
log = structlog.get_logger()


async def age_images(
    operations: Operations, bindings: Bindings, manage: Verb, *, interval_s: float
) -> None:
    """Runs until it is cancelled."""
    method = bindings.backend(manage)
    while method is not None:
        await asyncio.sleep(interval_s)
        await operations.reachable.wait()
        try:
            request = image_pb2.ManageImageCacheRequest()
            operation = await operations.start(manage, request, method, caller=_CALLER)
            await operations.response(operation, image_pb2.ManageImageCacheResponse)
        except ContractError as error:
            log.warning("images not aged", reason=str(error))
