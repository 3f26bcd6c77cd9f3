"""Opens consoles: with a token, once, or by the caller's own role."""

import asyncio
import socket
from collections.abc import Callable
from typing import TypeVar

from virtrpc.v1.console_pb2 import ConsoleType

from backends.contract import Consoles
from backends.errors import ContractError, UnreachableError
from service.consoles.tokens import Access, TokenRefusedError, Tokens
from service.pools import Pools

T = TypeVar("T")


class ConsoleAccess:
    """The way from the event loop to a backend's consoles, which block."""

    def __init__(self, *, consoles: Consoles, tokens: Tokens, pools: Pools) -> None:
        self.consoles = consoles
        self.tokens = tokens
        self._pools = pools

    async def spend(self, token: str, *, fits: Callable[[Access], bool]) -> Access:
        """What a token opens, once; raises TokenRefusedError.

        Also where it does not fit, or its machine was restarted. Nothing is spent where
        the hypervisor is out of reach.
        """
        access = self.tokens.find(token)
        if not fits(access):
            raise TokenRefusedError
        try:
            place = await self.blocking(self.consoles.place, access.instance_id, access.kind)
        except UnreachableError:
            raise
        except ContractError as error:
            raise TokenRefusedError from error
        if place.boot != access.boot:
            raise TokenRefusedError
        return self.tokens.spend(token)

    async def boot(self, instance_id: str, kind: "ConsoleType.ValueType") -> str:
        """Which start of its machine a console belongs to; raises as Consoles.place."""
        return (await self.blocking(self.consoles.place, instance_id, kind)).boot

    async def connect(self, instance_id: str, kind: "ConsoleType.ValueType") -> socket.socket:
        """See Consoles.connect."""
        return await self.blocking(self.consoles.connect, instance_id, kind)

    async def open_serial(self, instance_id: str) -> int:
        """See Consoles.open_serial."""
        return await self.blocking(self.consoles.open_serial, instance_id)

    async def blocking(self, function: Callable[..., T], *arguments: object) -> T:
        """Calls what blocks on a worker thread."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pools.reads, function, *arguments)
