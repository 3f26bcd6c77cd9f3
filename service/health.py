"""grpc.health.v1: the daemon as a whole, and each service while the hypervisor is in reach."""

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from service.errors import ShuttingDownError, status_of

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]

_STATUS = health_pb2.HealthCheckResponse
# Services that work without the hypervisor.
_OWN = frozenset({"", "virtrpc.v1.OperationService", "virtrpc.v1.EventService"})


class Health:
    """Keeps the health service's answers."""

    def __init__(self, server: grpc.aio.Server, services: Iterable[str]) -> None:
        self._services = ("", *services)
        self._servicer = _Servicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, server)

    async def report(self, *, connected: bool) -> None:
        """Everything serves, or what needs the hypervisor does not."""
        for service in self._services:
            serving = connected or service in _OWN
            status = _STATUS.SERVING if serving else _STATUS.NOT_SERVING
            await self._servicer.set(service, status)

    async def drain(self) -> None:
        """NOT_SERVING for good."""
        await self._servicer.enter_graceful_shutdown()

    def close(self) -> None:
        """Ends all streams: who watches has been told that nothing serves."""
        self._servicer.closing.set()


class _Servicer(health.aio.HealthServicer):  # type: ignore[misc]  # it has no types
    """Watchers that the server had to cut off at its end would be told CANCELLED."""

    def __init__(self) -> None:
        super().__init__()
        self.closing = asyncio.Event()

    async def Watch(  # noqa: N802 - the RPC's name
        self, request: health_pb2.HealthCheckRequest, context: "Context"
    ) -> None:
        """Tells the state, and each change of it, until the daemon stops."""
        watching = asyncio.ensure_future(super().Watch(request, context))
        closing = asyncio.ensure_future(self.closing.wait())
        try:
            await asyncio.wait({watching, closing}, return_when=asyncio.FIRST_COMPLETED)
            if not closing.done():
                await watching  # it has failed
        finally:
            watching.cancel()
            closing.cancel()
        stops = ShuttingDownError("the daemon stops")
        await context.abort_with_status(rpc_status.to_status(status_of(stops)))
