"""The WebSocket of the web console: a token, then the bytes of a console.

    client                              server
    {"page": "serial", "token": …}  ──▶
                                 ◀──    {"opened": {…, "resume": a token for the next time}}
    bytes, {"resize": [c, r]}   ◀──▶    bytes, {"expired": n}, {"dropped": n}, {"writer_lost": who}
                                 ◀──    {"closed": reason, "message": …}

"opened" says of a serial port's log where it begins ("offset"), and up to where it is an old
story ("end"), whose questions to a terminal nobody is to answer again.

A first message may also say "offset" and "log_id" of a serial port's log, "takeover", or
"watch", which is not to type. A connection that was resumed is ended where it still stands:
its place at the keyboard is free for the next one.

The token is the first message, not a part of the address: addresses stand in logs.
Browsers say by which page's script a socket is opened; others than our own are refused.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import aclosing, contextmanager, suppress
from typing import Any

import structlog
from aiohttp import WSCloseCode, WSMsgType, web
from virtrpc.v1 import console_pb2 as pb
from virtrpc.v1.options_pb2 import ROLE_OPERATOR

from backends.errors import ContractError, OutOfRangeError, UnreachableError, WrongStateError
from service.consoles.access import ConsoleAccess
from service.consoles.connections import ConsoleConnection, ConsoleConnections, closed
from service.consoles.output import ConsoleLogs
from service.consoles.tokens import Access, TokenRefusedError
from service.consoles.web_address import PAGES, WebAddress
from service.dispatcher import Call
from service.identity import Identity
from service.own.console_attach import AttachVerbs
from service.own.console_tunnel import Tunnel
from service.roles import including
from service.web.messages import Hello, hello, window

_HELLO_S = 10.0
_RESUME_S = 120.0
_LONGEST_S = 12 * 3600.0
_TAIL_BYTES = 16 * 1024
_MOST_SOCKETS = 512
_MOST_MESSAGE_BYTES = 64 * 1024
_HEARTBEAT_S = 30.0
_REFUSED, _ENDED = 4403, 4410  # codes of our own (RFC 6455, 7.4.2), after HTTP's
log = structlog.get_logger()


class ConsoleSockets:
    """All WebSockets of the web console. Event loop only."""

    def __init__(
        self,
        *,
        access: ConsoleAccess,
        connections: ConsoleConnections,
        logs: ConsoleLogs,
        attach: AttachVerbs,
        address: WebAddress,
        name_of: Callable[[str], str],
    ) -> None:
        """`name_of`: name of an instance by its id."""
        self._name_of = name_of
        self._access = access
        self._connections = connections
        self._logs = logs
        self._attach = attach
        self._address = address
        self._open: set[web.WebSocketResponse] = set()
        self._by_resume: dict[str, ConsoleConnection] = {}
        self._closing = False

    def close(self) -> None:
        """The daemon stops: clients are told to come again."""
        self._closing = True
        self._connections.close()

    async def handle(self, request: web.Request) -> web.WebSocketResponse:
        """Serves one until either end closes."""
        origin = request.headers.get("Origin")
        if origin is not None and origin != self._address.origin:
            raise web.HTTPForbidden(text="another origin than the console's own")
        if len(self._open) >= _MOST_SOCKETS:
            raise web.HTTPServiceUnavailable(text="too many consoles are open")
        socket = web.WebSocketResponse(
            heartbeat=_HEARTBEAT_S, max_msg_size=_MOST_MESSAGE_BYTES, compress=False
        )
        await socket.prepare(request)
        self._open.add(socket)
        try:
            await self._answer(socket)
        finally:
            self._open.discard(socket)
        return socket

    async def _answer(self, socket: web.WebSocketResponse) -> None:
        try:
            await self._serve(socket, await _first(socket))
        except ConnectionError:
            return  # the client has gone
        except UnreachableError:
            await socket.close(code=WSCloseCode.TRY_AGAIN_LATER)
        except ContractError as error:
            if self._closing:
                await socket.close(code=WSCloseCode.SERVICE_RESTART)
                return
            await _end(socket, _REFUSED, {"refused": error.reason, "message": str(error)})

    async def _serve(self, socket: web.WebSocketResponse, hello: Hello) -> None:
        access = await self._access.spend(
            hello.token, fits=lambda access: PAGES.get(access.kind) == hello.page
        )
        await self._end_former(hello.token)
        with (
            self._connections.opened(access.instance_id, access.boot) as connection,
            self._resumable(access, connection) as resume,
        ):
            told = {
                "instance_id": access.instance_id,
                "name": self._name_of(access.instance_id),
                "resume": resume,
            }
            if access.kind == pb.CONSOLE_TYPE_VNC:
                carried = self._screen(socket, access, connection, told)
            else:
                carried = self._attached(socket, access, hello, told)
            await _while_open(connection, carried)
        if self._closing:
            await socket.close(code=WSCloseCode.SERVICE_RESTART)
        elif not socket.closed:
            last = closed(connection.reason or pb.CONSOLE_CLOSE_REASON_DETACHED)
            name = pb.ConsoleCloseReason.Name(last.reason).removeprefix("CONSOLE_CLOSE_REASON_")
            await _end(socket, _ENDED, {"closed": name, "message": last.message})

    @contextmanager
    def _resumable(self, access: Access, connection: ConsoleConnection) -> Iterator[str]:
        """A token for the same client's next connection, good until a little after this one."""
        resume = self._access.tokens.mint(access, expires_at=time.time() + _LONGEST_S)
        self._by_resume[resume] = connection
        try:
            yield resume
        finally:
            self._by_resume.pop(resume, None)
            self._access.tokens.expire(resume, at=time.time() + _RESUME_S)

    async def _end_former(self, token: str) -> None:
        """Ends the connection that a token resumes, where only its client knows that it broke."""
        former = self._by_resume.get(token)
        if former is not None:
            former.end(pb.CONSOLE_CLOSE_REASON_DETACHED)
            await former.left.wait()

    async def _screen(
        self,
        socket: web.WebSocketResponse,
        access: Access,
        connection: ConsoleConnection,
        told: dict[str, Any],
    ) -> None:
        console = await self._access.connect(access.instance_id, access.kind)
        tunnel = await Tunnel.to(console, _tunnelled(socket), connection)
        try:
            await socket.send_json({"opened": told})
            async for data in tunnel.output():
                await socket.send_bytes(data)
        finally:
            await tunnel.close()

    async def _attached(
        self, socket: web.WebSocketResponse, access: Access, hello: Hello, told: dict[str, Any]
    ) -> None:
        """As writer, or as reader where somebody else writes; at the end of a log made anew."""
        asked = self._opening(access, hello)
        while True:
            try:
                return await self._attach_as(socket, asked, access, told)
            except WrongStateError as error:
                if error.reason != "WRITER_PRESENT":
                    raise
                asked.mode = pb.CONSOLE_MODE_READER
            except OutOfRangeError:  # virtlogd has cut it short
                asked.log_id = ""
                asked.offset = self._tail(access)

    async def _attach_as(
        self,
        socket: web.WebSocketResponse,
        asked: pb.AttachConsoleOpen,
        access: Access,
        told: dict[str, Any],
    ) -> None:
        identity = Identity(f"{access.caller} by web", including(ROLE_OPERATOR))
        call = Call(identity, None, _still_there)
        messages = self._attach.attach_console(_typed(socket, asked), call)
        end = self._logs.of(access.instance_id).end()
        async with aclosing(messages):
            async for message in messages:
                await _tell(socket, message, told | {"end": end})

    def _opening(self, access: Access, hello: Hello) -> pb.AttachConsoleOpen:
        asked = pb.AttachConsoleOpen(
            instance_id=access.instance_id,
            mode=pb.CONSOLE_MODE_READER if hello.watch else pb.CONSOLE_MODE_WRITER,
            takeover=hello.takeover and not hello.watch,
            log_id=hello.log_id,
        )
        asked.offset = self._tail(access) if hello.offset is None else hello.offset
        return asked

    def _tail(self, access: Access) -> int:
        return max(self._logs.of(access.instance_id).end() - _TAIL_BYTES, 0)


async def _while_open(connection: ConsoleConnection, carried: Coroutine[Any, Any, None]) -> None:
    """Carries a console's bytes until they end, or the connection does."""
    carrying = asyncio.ensure_future(carried)
    ended = asyncio.ensure_future(connection.ended.wait())
    try:
        await asyncio.wait({carrying, ended}, return_when=asyncio.FIRST_COMPLETED)
        if carrying.done():
            carrying.result()
    finally:
        for task in (carrying, ended):
            task.cancel()
        await asyncio.wait({carrying, ended})


async def _first(socket: web.WebSocketResponse) -> Hello:
    """The first message; raises TokenRefusedError where none comes, or nonsense."""
    try:
        async with asyncio.timeout(_HELLO_S):
            message = await socket.receive()
        return hello(message.data if message.type == WSMsgType.TEXT else "")
    except (TimeoutError, ValueError) as error:
        raise TokenRefusedError from error


async def _tunnelled(socket: web.WebSocketResponse) -> AsyncIterator[pb.TunnelConsoleRequest]:
    async for message in socket:
        if message.type == WSMsgType.BINARY and message.data:
            yield pb.TunnelConsoleRequest(data=message.data)


async def _typed(
    socket: web.WebSocketResponse, asked: pb.AttachConsoleOpen
) -> AsyncIterator[pb.AttachConsoleRequest]:
    """What the client types and how large its window is; of a reader nothing is taken."""
    yield pb.AttachConsoleRequest(open=asked)
    writes = asked.mode == pb.CONSOLE_MODE_WRITER
    async for message in socket:
        if not writes:
            continue
        if message.type == WSMsgType.BINARY and message.data:
            yield pb.AttachConsoleRequest(input=message.data)
        elif message.type == WSMsgType.TEXT:
            with suppress(ValueError):
                yield pb.AttachConsoleRequest(resize=window(message.data))


async def _tell(
    socket: web.WebSocketResponse, message: pb.AttachConsoleResponse, told: dict[str, Any]
) -> None:
    """One message of an attachment, as the page understands it."""
    match message.WhichOneof("message"):
        case "data":
            await socket.send_bytes(message.data.data)
        case "opened":
            opened = message.opened
            facts = {
                "writer": opened.writer,
                "writer_identity": opened.writer_identity,
                "offset": opened.offset,
                "log_id": opened.log_id,
            }
            await socket.send_json({"opened": told | facts})
        case "expired":
            await socket.send_json({"expired": message.expired.end - message.expired.begin})
        case "input_dropped":
            await socket.send_json({"dropped": message.input_dropped.dropped_bytes})
        case "writer_lost":
            await socket.send_json({"writer_lost": message.writer_lost.writer_identity})


async def _end(socket: web.WebSocketResponse, code: int, last: dict[str, str]) -> None:
    if not socket.closed:
        await socket.send_json(last)
        await socket.close(code=code)


async def _still_there() -> bool:
    return True
