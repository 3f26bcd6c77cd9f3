"""ConsoleService.GetConsole: where a console is, and a token that opens it once.

It is an operation like other mutations, but what is kept of it has no secret: the
token is made when the first caller is answered.
"""

import socket
from dataclasses import dataclass, field
from functools import partial

from virtrpc.v1 import console_pb2 as pb

from backends.contract import ConsolePlace
from backends.errors import UnsupportedError
from backends.redaction import redacted
from backends.work import Work
from service.consoles.access import ConsoleAccess
from service.consoles.tokens import Access
from service.consoles.web_address import WebAddress
from service.dispatcher import Call
from service.operations.execution import Method
from service.operations.operation import checked
from service.operations.runner import Operations
from service.verbs import Verb

_DEFAULT_LIFETIME_S = 600.0
_SERIAL = (pb.CONSOLE_TYPE_SERIAL, pb.CONSOLE_TYPE_WEB)


@dataclass
class _Found:
    """What this very call found; nothing, where an earlier one with its request_id did."""

    reply: pb.GetConsoleResponse = field(default_factory=pb.GetConsoleResponse)
    boot: str = ""


class AccessVerbs:
    """Makes accesses to consoles."""

    def __init__(
        self,
        *,
        access: ConsoleAccess,
        web: WebAddress,
        operations: Operations,
        verb: Verb,
    ) -> None:
        self._access = access
        self._web = web
        self._operations = operations
        self._verb = verb

    def mutations(self) -> dict[str, tuple[Verb, Method]]:
        """Verbs that the journal may hold, with what takes them up after a restart."""
        return {self._verb.name: (self._verb, partial(self._find, _Found()))}

    async def get_console(self, request: pb.GetConsoleRequest, call: Call) -> pb.GetConsoleResponse:
        """See ConsoleService.GetConsole."""
        self._operations.require_open()
        found = _Found()
        method = partial(self._find, found)
        if request.validate_only:
            await self._access.blocking(checked, method, request, call.identity.name)
            return pb.GetConsoleResponse()
        operation = await self._operations.start(
            self._verb, request, method, caller=call.identity.name
        )
        recorded = await self._operations.response(operation, pb.GetConsoleResponse)
        if found.reply.HasField("pool"):
            return found.reply
        if not found.boot:
            return recorded
        return self._with_token(request, found, caller=call.identity.name)

    def _with_token(
        self, request: pb.GetConsoleRequest, found: _Found, *, caller: str
    ) -> pb.GetConsoleResponse:
        access = Access(
            instance_id=request.instance_id, kind=request.type, boot=found.boot, caller=caller
        )
        reply = found.reply
        expires_at = reply.expires_at.ToNanoseconds() / 1e9
        reply.token = self._access.tokens.mint(access, expires_at=expires_at)
        reply.web_url = self._web.page(request.type, reply.token)
        return reply

    def _find(
        self, found: _Found, request: pb.GetConsoleRequest, work: Work
    ) -> pb.GetConsoleResponse:
        """The verb, on its worker thread: gives what of the reply may be kept."""
        consoles = self._access.consoles
        if request.type == pb.CONSOLE_TYPE_POOL:
            pool = consoles.pool(request.pooled_type or pb.CONSOLE_TYPE_VNC)
            reply = pb.GetConsoleResponse(type=request.type, host=pool.address, pool=pool)
            boot = ""
        else:
            place = consoles.place(request.instance_id, request.type)
            reply, boot = self._reply(request, place), place.boot
        work.ready()
        work.step("token")
        found.reply, found.boot = reply, boot
        return redacted(reply)

    def _reply(self, request: pb.GetConsoleRequest, place: ConsolePlace) -> pb.GetConsoleResponse:
        web = self._web
        if request.type == pb.CONSOLE_TYPE_WEB and not web.has_pages:
            raise UnsupportedError(
                "get_console.web", why="the daemon serves no web console (--http)", field="type"
            )
        reply = pb.GetConsoleResponse(
            type=request.type,
            host=place.host or web.host or socket.gethostname(),
            port=place.port,
            tls_port=place.tls_port,
            path=place.path,
        )
        if request.type in _SERIAL and web.port:
            reply.port, reply.path = web.port, web.socket_path
        lifetime_s = _DEFAULT_LIFETIME_S
        if request.HasField("lifetime"):
            lifetime_s = request.lifetime.ToNanoseconds() / 1e9
        reply.expires_at.GetCurrentTime()
        reply.expires_at.FromNanoseconds(reply.expires_at.ToNanoseconds() + int(lifetime_s * 1e9))
        return reply
