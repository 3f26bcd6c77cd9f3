"""The daemon put together: start, serve, stop.

    state lock ─▶ journal, event log ─▶ server up ─▶ backend open ─▶ recovery ─▶ READY
    SIGTERM ─▶ NOT_SERVING ─▶ streams end with a cursor ─▶ operations drain ─▶ closed

The server answers before the backend is open: reads are stale then, mutations
UNAVAILABLE, until the hypervisor is in reach.
"""

import asyncio
import signal
import time
from collections.abc import Coroutine
from importlib.metadata import version

import grpc
import structlog
from grpc_reflection.v1alpha import reflection
from prometheus_client import CollectorRegistry
from virtrpc.v1 import host_pb2

from backends.contract import Lifecycle
from backends.errors import ContractError
from backends.loading import BackendOptions, UnknownBackendError, load_backend
from backends.work import Undo
from service.admission import Admission
from service.bindings import Bindings
from service.console_service import ConsoleService
from service.database import DatabaseFileError
from service.dispatcher import Dispatcher
from service.events.hub import Hub
from service.events.log import EventLog
from service.guard import Guard
from service.health import Health
from service.host_door import UNDO as UNDO_DOOR
from service.host_door import HostDoor
from service.host_state import HostState
from service.identity import Gate
from service.image_cache import age_images
from service.listeners import ListenError, Listeners
from service.metrics import DaemonMetrics, InstanceMetrics, RpcMetrics
from service.metrics import serve as serve_metrics
from service.observer import HostObserver
from service.operations.book import OperationBook
from service.operations.journal import Journal, JournalError
from service.operations.runner import Method, Operations
from service.own.diagnostics import DiagnosticsVerbs
from service.own.events import EventVerbs
from service.own.host import DaemonState
from service.own.host_services import bind_host
from service.own.images import ImageVerbs
from service.own.instances import InstanceReads
from service.own.migrations import MigrationVerbs
from service.own.operations import OperationVerbs
from service.own.rescues import RescueVerbs
from service.peers import GrpcPeers
from service.pools import Pools
from service.reclaim import reclaim
from service.rescues import Rescues
from service.samples import Samples
from service.settings import Settings
from service.state_dir import StateDir, StateInUseError
from service.tls import Tls, connection_age
from service.tls_files import TlsFilesError
from service.truth import Truth
from service.verbs import Verb, all_verbs, service_names

_OPTIONS = (
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", 16 * 1024 * 1024),
    ("grpc.server_handshake_timeout_ms", 10_000),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # Beyond these gRPC refuses calls by itself, as CANCELLED: ours to refuse, by Admission.
    ("grpc.server.max_pending_requests", 100_000),
    ("grpc.server.max_pending_requests_hard_limit", 100_000),
)
_RETRY_S = 2.0
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


class Daemon:
    """One daemon. Make it on the event loop on which it is to run."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._tls = Tls(settings.tls) if settings.tls is not None else None
        self._state_dir = StateDir(settings.state_dir)
        settings.image_dir.mkdir(mode=0o711, parents=True, exist_ok=True)
        self._backend = load_backend(
            settings.backend,
            BackendOptions(
                state_dir=self._state_dir.path,
                image_dir=settings.image_dir.resolve(),
                libvirt_uri=settings.libvirt_uri,
                virt_type=settings.virt_type,
                fake_faults=settings.fake_faults,
                fake_lacks=settings.fake_lacks,
                share_dirs=settings.share_dirs,
                reclaim_after_s=settings.reclaim_after_s,
                images=settings.images,
                volumes=settings.volumes,
                dedicated_cpus=settings.dedicated_cpus,
                pci_passthrough=settings.pci_passthrough,
                host_power=settings.host_power,
                host_id=self._state_dir.host_id,
                instance_dir=settings.instance_dir,
                peers=GrpcPeers(settings.peer_networks),
                hypervisor_uri=settings.hypervisor_uri,
                migration_uri=settings.migration_uri,
            ),
        )
        self._journal = Journal(self._state_dir.journal)
        self._host_state = HostState(self._state_dir.host_state)
        self._hub = Hub(EventLog(self._state_dir.events))
        self._truth = Truth()
        self._samples = Samples()
        self._pools = Pools.make()
        self._consoles = ConsoleService(
            settings=settings,
            state_dir=self._state_dir,
            backend=self._backend,
            truth=self._truth,
            pools=self._pools,
            closing=lambda: self._operations.closing,
        )
        self._tasks: list[asyncio.Task[None]] = []
        self._state = DaemonState(
            backend=settings.backend,
            version=version("virtrpcd"),
            host_id=self._state_dir.host_id,
        )
        self._verbs = all_verbs()
        self._reachable = asyncio.Event()
        self._observer = HostObserver(
            truth=self._truth,
            hub=self._hub,
            daemon=self._state,
            consoles=self._consoles.watch,
            connections=self._consoles.connections,
            reachable=self._reachable,
        )
        self._door = HostDoor(self._host_state, self._truth, self._observer)
        self._operations = Operations(
            journal=self._journal,
            book=OperationBook(),
            pools=self._pools,
            undo=self._undo,
            break_off=self._backend.break_off,
            listener=self._observer,
            reachable=self._reachable,
            keeps_out=self._door.keeps_out,
        )
        self._bindings = Bindings(own=self._own_verbs(), facets=self._backend.facets())
        self._resources = bind_host(
            self._bindings,
            self._operations,
            backend=self._backend,
            daemon=self._state,
            door=self._door,
            truth=self._truth,
            verbs=self._verbs,
            pools=self._pools,
            policy=settings.inventory,
        )
        self._rescues = Rescues(
            truth=self._truth,
            operations=self._operations,
            bindings=self._bindings,
            unrescue=self._verbs["/virtrpc.v1.InstanceService/UnrescueInstance"],
        )
        self._bindings.add_facet(RescueVerbs(self._rescues))
        images = ImageVerbs(
            store=self._backend.image_store,
            users=self._backend.image_users,
            truth=self._truth,
            operations=self._operations,
            pools=self._pools,
            upload=self._verbs["/virtrpc.v1.ImageService/UploadImage"],
        )
        self._bindings.add_own(images)
        access = self._consoles.access_verbs(
            self._operations, self._verbs["/virtrpc.v1.ConsoleService/GetConsole"]
        )
        self._bindings.add_own(access)
        self._operations.load(
            self._journal.load(), self._mutations() | images.mutations() | access.mutations()
        )
        self._registry = CollectorRegistry()
        self._server = self._make_server()
        self._listeners = Listeners(self._server, insecure=settings.insecure, tls=self._tls)
        self._health = Health(self._server, service_names())

    async def start(self) -> None:
        """Serves; the backend is opened beside it."""
        bound = self._listeners.bind(self._settings.listen)
        self._serve_metrics()
        await self._health.report(connected=False)
        await self._server.start()
        await self._consoles.start()
        self._begin(self._open_backend())
        log.info("serving", addresses=bound, backend=self._settings.backend)

    async def stop(self) -> None:
        """Ends streams with a cursor, lets operations end within the grace, closes everything."""
        log.info("stopping")
        self._state.state = host_pb2.DAEMON_STATE_DRAINING
        await self._health.drain()
        self._operations.closing = True
        await self._consoles.stop()
        await self._operations.drain(self._settings.grace_s)
        await self._hub.close()
        await self._server.stop(grace=2)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._close_backend()
        await self._hub.release()
        self._consoles.release()
        self._pools.shutdown()
        self._journal.close()
        self._host_state.close()
        self._listeners.release()
        self._state_dir.release()
        log.info("stopped")

    async def _close_backend(self) -> None:
        """Lets go of the hypervisor; one that hangs does not keep the daemon."""
        loop = asyncio.get_running_loop()
        closed = loop.run_in_executor(self._pools.urgent, self._backend.close)
        done, _ = await asyncio.wait({closed}, timeout=_CLOSE_S)
        if not done:
            log.warning("the hypervisor did not let go", waited_s=_CLOSE_S)
            return
        error = closed.exception()
        if error is not None:
            log.error("the hypervisor was not left in order", exc_info=error)

    def _own_verbs(self) -> list[object]:
        lifecycle = next((f for f in self._backend.facets() if isinstance(f, Lifecycle)), None)
        return [
            InstanceReads(self._truth, lifecycle=lifecycle, pools=self._pools),
            OperationVerbs(self._operations),
            EventVerbs(self._hub, self._truth),
            DiagnosticsVerbs(
                truth=self._truth,
                samples=self._samples,
                book=self._operations.book,
                pools=self._pools,
                sample_one=self._backend.sample_one,
            ),
            *self._consoles.verbs(),
            MigrationVerbs(self._backend.migrations, closing=lambda: self._operations.closing),
        ]

    def _undo(self, undo: Undo) -> None:
        """Undoes a step: of the service's own, or of the backend's."""
        if undo.action == UNDO_DOOR:
            self._door.undo(undo.arguments["before"])
        else:
            self._backend.undo(undo)

    def _make_server(self) -> grpc.aio.Server:
        gate = Gate(self._settings.roles, insecure=self._settings.insecure)
        server = grpc.aio.server(
            interceptors=(Guard(gate, self._verbs),),
            options=(*_OPTIONS, *connection_age(self._settings)),
        )
        dispatcher = Dispatcher(
            bindings=self._bindings,
            operations=self._operations,
            pools=self._pools,
            metrics=RpcMetrics(self._registry),
            gate=gate,
            admission=Admission(),
        )
        server.add_generic_rpc_handlers(tuple(dispatcher.handlers(self._verbs.values())))
        names = (*service_names(), "grpc.health.v1.Health", reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, server)
        return server

    def _serve_metrics(self) -> None:
        DaemonMetrics(
            self._registry,
            version=self._state.version,
            backend=self._state.backend,
            connected=self._reachable.is_set,
            live_operations=self._operations.live_count,
            watchers=lambda: len(self._hub.watchers),
        )
        self._registry.register(InstanceMetrics(lambda: list(self._truth.all())))
        if self._settings.metrics:
            serve_metrics(self._registry, self._settings.metrics)

    async def _open_backend(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                facts = await loop.run_in_executor(
                    self._pools.urgent, self._backend.open, self._observer
                )
                break
            except ContractError as error:
                log.warning("hypervisor not reached", reason=str(error), retry_in_s=_RETRY_S)
                self._state.connection_error = str(error)
                await asyncio.sleep(_RETRY_S)
        self._state.facts = facts
        self._state.probed_at.GetCurrentTime()
        self._bindings.missing = facts.missing
        self._operations.recover()
        self._state.state = host_pb2.DAEMON_STATE_READY
        for work in (
            self._report_health,
            self._sample,
            self._consoles.trim,
            self._consoles.age,
            self._reclaim,
            self._age_images,
            self._end_rescues,
        ):
            self._begin(work())

    def _begin(self, work: Coroutine[None, None, None]) -> None:
        """Runs beside everything else until the stop; its failure does not stay unseen."""
        task = asyncio.ensure_future(work)
        task.add_done_callback(_report_failure)
        self._tasks.append(task)

    def _mutations(self) -> dict[str, tuple[Verb, Method]]:
        return {
            verb.name: (verb, method)
            for verb in self._verbs.values()
            if verb.mutates and (method := self._bindings.backend(verb)) is not None
        }

    async def _report_health(self) -> None:
        connected = None
        while True:
            if connected != self._reachable.is_set():
                connected = self._reachable.is_set()
                await self._health.report(connected=connected)
            await asyncio.sleep(0.2)

    async def _sample(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._reachable.wait()
            try:
                samples = await loop.run_in_executor(self._pools.reads, self._backend.sample)
                at_ns = time.time_ns()
                self._truth.sampled(samples, at_ns=at_ns)
                self._samples.take(samples, at_ns=at_ns)
                await self._resources.sample()
            except ContractError as error:
                log.warning("counters not sampled", reason=str(error))
            await asyncio.sleep(self._settings.sample_interval_s)

    async def _reclaim(self) -> None:
        destroy = self._verbs["/virtrpc.v1.InstanceService/DestroyInstance"]
        await reclaim(self._truth, self._operations, self._bindings, destroy)

    async def _end_rescues(self) -> None:
        timeout_s = self._settings.rescue_timeout_s
        if timeout_s:
            await self._rescues.watch(timeout_s=timeout_s)

    async def _age_images(self) -> None:
        manage = self._verbs["/virtrpc.v1.ImageService/ManageImageCache"]
        interval_s = self._settings.image_cache_interval_s
        if interval_s:
            await age_images(self._operations, self._bindings, manage, interval_s=interval_s)


def _report_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        log.error("defect: a part of the daemon has ended", exc_info=task.exception())
