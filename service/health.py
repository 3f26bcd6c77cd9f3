"""grpc.health.v1: the daemon as a whole, and each service while the hypervisor is in reach."""

from collections.abc import Iterable

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

_STATUS = health_pb2.HealthCheckResponse
# Services that work without the hypervisor.
_OWN = frozenset({"", "virtrpc.v1.OperationService", "virtrpc.v1.EventService"})


class Health:
    """Keeps the health service's answers."""

    def __init__(self, server: grpc.aio.Server, services: Iterable[str]) -> None:
        self._services = ("", *services)
        self._servicer = health.aio.HealthServicer()
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
