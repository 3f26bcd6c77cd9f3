"""Everything about consoles put together: logs, writers, tokens, connections, the web console."""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog

from backends.contract import Backend
from backends.errors import ContractError
from service.consoles.access import ConsoleAccess
from service.consoles.connections import ConsoleConnections
from service.consoles.moves import Moves
from service.consoles.output import ConsoleLogs
from service.consoles.recording import Recordings
from service.consoles.tokens import Tokens
from service.consoles.watch import ConsoleWatch
from service.consoles.web_address import WebAddress
from service.consoles.writing import Writers
from service.listeners import ListenError
from service.operations.runner import Operations
from service.own.console_access import AccessVerbs
from service.own.console_attach import AttachVerbs
from service.own.console_tunnel import TunnelVerbs
from service.own.consoles import ConsoleVerbs
from service.pools import Pools
from service.settings import Settings
from service.state_dir import StateDir
from service.tls import Tls
from service.truth import Truth
from service.verbs import Verb

if TYPE_CHECKING:
    from service.web.server import WebConsole

_TRIM_S = 1.0
_AGE_S = 600.0
log = structlog.get_logger()


class ConsoleService:
    """The parts of the daemon that serve consoles. Event loop only."""

    def __init__(
        self,
        *,
        settings: Settings,
        tls: Tls | None,
        state_dir: StateDir,
        backend: Backend,
        truth: Truth,
        pools: Pools,
        closing: Callable[[], bool],
    ) -> None:
        """`closing`: whether the daemon stops."""
        self.watch = ConsoleWatch()
        self._settings = settings
        self._tls = tls
        self._backend = backend
        self._truth = truth
        self._pools = pools
        self._tokens = Tokens(state_dir.tokens)
        self._moves = Moves(backend.migrations)
        self.connections = ConsoleConnections(self._tokens, self._moves)
        self._access = ConsoleAccess(consoles=backend.consoles, tokens=self._tokens, pools=pools)
        self._address = WebAddress()
        self._recordings = Recordings(
            state_dir.recordings,
            max_age_s=settings.recording_max_age_s,
            max_bytes=settings.recording_max_bytes,
        )
        self._logs = ConsoleLogs(
            console_log=backend.console_log,
            # While the truth is stale nobody can say that an instance is gone.
            exists=lambda instance_id: truth.stale or instance_id in truth,
            moves=self._moves,
        )
        self._attach = AttachVerbs(
            logs=self._logs,
            watch=self.watch,
            writers=Writers(self._access.open_serial),
            recordings=self._recordings,
            moves=self._moves,
            closing=closing,
        )
        self._closing = closing
        self._web = self._web_console() if settings.http else None

    def verbs(self) -> list[object]:
        """What carries out ConsoleService, but for GetConsole."""
        return [
            ConsoleVerbs(
                logs=self._logs, watch=self.watch, moves=self._moves, closing=self._closing
            ),
            self._attach,
            TunnelVerbs(access=self._access, connections=self.connections, closing=self._closing),
        ]

    def access_verbs(self, operations: Operations, verb: Verb) -> AccessVerbs:
        """What carries out GetConsole."""
        return AccessVerbs(access=self._access, web=self._address, operations=operations, verb=verb)

    async def start(self) -> None:
        """Serves the web console; raises ListenError."""
        if self._web is not None:
            log.info("serving the web console", address=await self._web.start())

    async def stop(self) -> None:
        """Ends every stream and connection; guests are not concerned."""
        self.watch.close()
        self.connections.close()
        if self._web is not None:
            await self._web.stop()

    def release(self) -> None:
        """Lets go of files, when nothing is served any more."""
        self._tokens.close()

    async def trim(self) -> None:
        """Keeps all logs within their bounds, without end."""
        while True:
            await self.trim_all()
            await asyncio.sleep(_TRIM_S)

    async def trim_all(self) -> None:
        """Gives back what is beyond the bounds now."""
        loop = asyncio.get_running_loop()
        instance_ids = [instance.instance_id for instance in self._truth.all()]
        await loop.run_in_executor(self._pools.reads, self._trim, instance_ids)

    async def age(self) -> None:
        """Removes old recordings, without end."""
        loop = asyncio.get_running_loop()
        while True:
            await loop.run_in_executor(self._pools.reads, self._recordings.remove_old)
            await asyncio.sleep(_AGE_S)

    def _trim(self, instance_ids: list[str]) -> None:
        for instance_id in instance_ids:
            try:
                self._backend.console_log(instance_id).trim()
            except (ContractError, OSError) as error:
                log.debug("console not trimmed", instance_id=instance_id, reason=str(error))

    def _web_console(self) -> "WebConsole":
        try:
            # Imported only where it is served: its server is an extra.
            from service.web.server import WebConsole  # noqa: PLC0415
            from service.web.sockets import ConsoleSockets  # noqa: PLC0415
        except ImportError as error:
            raise ListenError(f"--http needs the extra 'web' of virtrpcd: {error}") from error
        return WebConsole(
            listen=self._settings.http,
            public_url=self._settings.http_url,
            folder=self._settings.web_dir,
            insecure=self._settings.insecure,
            tls=self._tls,
            address=self._address,
            sockets=ConsoleSockets(
                access=self._access,
                connections=self.connections,
                logs=self._logs,
                attach=self._attach,
                address=self._address,
                name_of=lambda instance_id: self._truth.get(instance_id).instance.name,
            ),
        )
