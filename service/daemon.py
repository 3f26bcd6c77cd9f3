"""The daemon put together: start, serve, stop.

    state lock ─▶ journal, event log ─▶ server up ─▶ backend open ─▶ recovery ─▶ READY
    SIGTERM ─▶ NOT_SERVING ─▶ streams end with a cursor ─▶ operations drain ─▶ closed

The server answers before the backend is open: reads are stale then, mutations
UNAVAILABLE, until the hypervisor is in reach.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Coroutine

import structlog
from prometheus_client import CollectorRegistry
from virtrpc.v1 import host_pb2

from backends.errors import ContractError
from backends.loading import UnknownBackendError
from service.bound_verbs import BoundVerbs
from service.chores import Chores
from service.core import Core
from service.database import DatabaseFileError
from service.health import Health
from service.listeners import ListenError, Listeners
from service.metrics import DaemonMetrics, InstanceMetrics
from service.metrics import serve as serve_metrics
from service.operations.journal import JournalError
from service.server import make_server
from service.settings import Settings
from service.state_dir import StateInUseError
from service.tls_files import TlsFilesError
from service.verbs import service_names

_RETRY_S = 2.0
_CALLS_S = 2.0
_CLOSE_S = 5.0
log = structlog.get_logger()


class StartError(Exception):
    """The daemon cannot start; the message says why and what to do."""


async def serve(settings: Settings) -> None:
    """Runs a daemon until SIGTERM or SIGINT."""
    try:
        daemon = Daemon(settings)
    except (
        StateInUseError,
        JournalError,
        DatabaseFileError,
        UnknownBackendError,
        ContractError,
        ListenError,
        TlsFilesError,
        OSError,
    ) as error:
        raise StartError(str(error)) from error
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        await daemon.start()
    except (ListenError, OSError) as error:
        raise StartError(str(error)) from error
    await stop.wait()
    await daemon.stop()
    if daemon.calls_left:
        sys.stderr.flush()
        os._exit(0)  # gRPC's own end, at that of the process, would wait for them too


class Daemon:
    """One daemon. Make it on the event loop on which it is to run."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._core = core = Core(settings)
        self._bound = BoundVerbs(core)
        core.operations.load(core.journal.load(), self._bound.mutations())
        self._registry = CollectorRegistry()
        self._server = make_server(core, self._bound, self._registry)
        self._listeners = Listeners(self._server, insecure=settings.insecure, tls=core.tls)
        self._health = Health(self._server, service_names())
        self._tasks: list[asyncio.Task[None]] = []
        self.calls_left = False
        """After the stop: some callers were neither answered nor gone."""

    async def start(self) -> None:
        """Serves; the backend is opened beside it."""
        bound = self._listeners.bind(self._settings.listen)
        self._serve_metrics()
        await self._core.consoles.start()  # may be refused; a server that is up is in the way then
        await self._health.report(connected=False)
        await self._server.start()
        self._begin(self._open_backend())
        log.info("serving", addresses=bound, backend=self._settings.backend)

    async def stop(self) -> None:
        """Ends streams with a cursor, lets operations end within the grace, closes everything."""
        log.info("stopping")
        core = self._core
        core.daemon.state = host_pb2.DAEMON_STATE_DRAINING
        await self._health.drain()
        core.operations.closing = True
        await core.consoles.stop()
        await core.operations.drain(self._settings.grace_s)
        await core.hub.close()
        self._health.close()
        await self._stop_server()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._close_backend()
        await core.release()
        self._listeners.release()
        core.state_dir.release()
        log.info("stopped")

    async def _stop_server(self) -> None:
        """Ends what is still called; gRPC would wait for callers who read nothing, without end."""
        stopped = asyncio.ensure_future(self._server.stop(grace=_CALLS_S))
        done, _ = await asyncio.wait({stopped}, timeout=_CALLS_S + 1)
        if not done:
            self.calls_left = True
            log.warning("callers who do not read were left")

    async def _close_backend(self) -> None:
        """Lets go of the hypervisor; one that hangs does not keep the daemon."""
        loop = asyncio.get_running_loop()
        closed = loop.run_in_executor(self._core.pools.urgent, self._core.backend.close)
        done, _ = await asyncio.wait({closed}, timeout=_CLOSE_S)
        if not done:
            log.warning("the hypervisor did not let go", waited_s=_CLOSE_S)
            return
        error = closed.exception()
        if error is not None:
            log.error("the hypervisor was not left in order", exc_info=error)

    def _serve_metrics(self) -> None:
        core = self._core
        DaemonMetrics(
            self._registry,
            version=core.daemon.version,
            backend=core.daemon.backend,
            connected=core.reachable.is_set,
            live_operations=core.operations.live_count,
            watchers=lambda: len(core.hub.watchers),
        )
        self._registry.register(InstanceMetrics(lambda: list(core.truth.all())))
        if self._settings.metrics:
            serve_metrics(self._registry, self._settings.metrics)

    async def _open_backend(self) -> None:
        core, loop = self._core, asyncio.get_running_loop()
        while True:
            try:
                facts = await loop.run_in_executor(
                    core.pools.urgent, core.backend.open, core.observer
                )
                break
            except ContractError as error:
                log.warning("hypervisor not reached", reason=str(error), retry_in_s=_RETRY_S)
                core.daemon.connection_error = str(error)
                await asyncio.sleep(_RETRY_S)
        core.daemon.facts = facts
        core.daemon.probed_at.GetCurrentTime()
        self._bound.bindings.missing = facts.missing
        await core.consoles.trim_all()
        core.operations.recover()
        core.daemon.state = host_pb2.DAEMON_STATE_READY
        core.observer.opened()
        for chore in Chores(core, self._bound, self._health).all():
            self._begin(chore)

    def _begin(self, work: Coroutine[None, None, None]) -> None:
        """Runs beside everything else until the stop; its failure does not stay unseen."""
        task = asyncio.ensure_future(work)
        task.add_done_callback(_report_failure)
        self._tasks.append(task)


def _report_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        log.error("defect: a part of the daemon has ended", exc_info=task.exception())
