"""ConsoleService.TunnelConsole: the bytes of a connection to a graphical console.

client ─▶ pump ─▶ console      each waits for the other to take what it has
client ◀───────── console
"""

import asyncio
from collections.abc import AsyncIterator, Callable

from virtrpc.v1 import console_pb2 as pb

from service.consoles.access import ConsoleAccess
from service.consoles.connections import ConsoleConnection, ConsoleConnections, closed
from service.consoles.opening import opening, refuse_opening
from service.consoles.output import happens
from service.consoles.writing import cancelled
from service.dispatcher import Call
from service.errors import ShuttingDownError

_READ_BYTES = 64 * 1024
_STOP_NEWS_S = 5.0  # a machine closes its consoles seconds before libvirt tells its end
Requests = AsyncIterator[pb.TunnelConsoleRequest]


class TunnelVerbs:
    """Tunnels to graphical consoles."""

    def __init__(
        self,
        *,
        access: ConsoleAccess,
        connections: ConsoleConnections,
        closing: Callable[[], bool],
    ) -> None:
        self._access = access
        self._connections = connections
        self._closing = closing

    async def tunnel_console(
        self, requests: Requests, _call: Call
    ) -> AsyncIterator[pb.TunnelConsoleResponse]:
        """See ConsoleService.TunnelConsole."""
        asked = (await opening(requests)).open
        if asked.token:
            wanted = (asked.instance_id, asked.type)
            await self._access.spend(
                asked.token, fits=lambda access: (access.instance_id, access.kind) == wanted
            )
        boot = await self._access.boot(asked.instance_id, asked.type)
        with self._connections.opened(asked.instance_id, boot) as connection:
            tunnel = await Tunnel.to(
                await self._access.connect(asked.instance_id, asked.type), requests, connection
            )
            try:
                yield pb.TunnelConsoleResponse(opened=pb.TunnelConsoleOpened())
                async for data in tunnel.output():
                    yield pb.TunnelConsoleResponse(data=data)
            finally:
                await tunnel.close()
            if self._closing():
                raise ShuttingDownError("the daemon stops")
            yield pb.TunnelConsoleResponse(closed=closed(connection.reason))


class Tunnel:
    """A connection to a console, and the client's messages on their way to it."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        requests: Requests,
        connection: ConsoleConnection,
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._requests = requests
        self._connection = connection
        self._failure: BaseException | None = None
        self._pump = asyncio.ensure_future(self._send())

    @classmethod
    async def to(
        cls, console: object, requests: Requests, connection: ConsoleConnection
    ) -> "Tunnel":
        """A tunnel over a connected socket."""
        reader, writer = await asyncio.open_connection(sock=console, limit=_READ_BYTES)
        return cls(reader, writer, requests, connection)

    async def output(self) -> AsyncIterator[bytes]:
        """What the console says until either end closes; raises what messages were refused for."""
        ended = asyncio.ensure_future(self._connection.ended.wait())
        try:
            while not self._connection.ended.is_set():
                reading = asyncio.ensure_future(self._read())
                await asyncio.wait({reading, ended}, return_when=asyncio.FIRST_COMPLETED)
                if not reading.done():
                    reading.cancel()
                    break
                data = reading.result()
                if not data:
                    await self._hung_up()
                    break
                yield data
        finally:
            ended.cancel()
        if self._failure is not None:
            raise self._failure

    async def close(self) -> None:
        """Lets go of the console."""
        await cancelled(self._pump)
        self._writer.close()

    async def _read(self) -> bytes:
        try:
            return await self._reader.read(_READ_BYTES)
        except OSError:  # reset: the machine has ended
            return b""

    async def _hung_up(self) -> None:
        if not await happens(self._connection.ended, _STOP_NEWS_S):
            self._connection.end(pb.CONSOLE_CLOSE_REASON_CONSOLE_CLOSED)

    async def _send(self) -> None:
        """The client's messages until it half-closes."""
        try:
            async for request in self._requests:
                refuse_opening(request)
                self._writer.write(request.data)
                await self._writer.drain()
        except OSError:
            return  # the console has gone: its output says so
        except Exception as error:  # noqa: BLE001 - told by the stream, whose end it is
            self._failure = error
        self._connection.end(pb.CONSOLE_CLOSE_REASON_DETACHED)
