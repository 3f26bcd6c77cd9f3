"""What the daemon's verbs and chores stand on: the hypervisor, the journal, the truth, the hub.

backend ──facts, changes──▶ observer ──▶ truth, hub, console connections
operations ──each step──▶ journal, before it is done
"""

import asyncio
from collections.abc import Sequence
from importlib.metadata import version

from google.protobuf.message import Message

from backends.contract import Backend
from backends.errors import ContractError
from backends.loading import BackendOptions, load_backend
from backends.work import Undo
from service.arrivals import kept_for_its_source
from service.console_service import ConsoleService
from service.events.hub import Hub
from service.events.log import EventLog
from service.host_door import UNDO as UNDO_DOOR
from service.host_door import HostDoor
from service.host_state import HostState
from service.observer import HostObserver
from service.operations.book import OperationBook
from service.operations.journal import Journal
from service.operations.runner import Operations
from service.own.host import DaemonState
from service.peers import GrpcPeers
from service.pools import Pools
from service.samples import Samples
from service.settings import Settings
from service.state_dir import StateDir
from service.tls import Tls
from service.truth import Truth
from service.verbs import Verb


class Core:
    """Made before anything is served. Event loop only.

    Raises StateInUseError, JournalError, DatabaseFileError, UnknownBackendError,
    ContractError, TlsFilesError, OSError.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.tls = Tls(settings.tls) if settings.tls is not None else None
        self.state_dir = StateDir(settings.state_dir)
        self.backend = _backend(settings, self.state_dir, self.tls)
        self.journal = Journal(self.state_dir.journal)
        self.host_state = HostState(self.state_dir.host_state)
        self.hub = Hub(EventLog(self.state_dir.events))
        self.truth = Truth()
        self.samples = Samples()
        self.pools = Pools.make()
        self.reachable = asyncio.Event()
        """While the hypervisor is."""
        self.daemon = DaemonState(
            backend=settings.backend,
            version=version("virtrpcd"),
            host_id=self.state_dir.host_id,
        )
        self.consoles = ConsoleService(
            settings=settings,
            tls=self.tls,
            state_dir=self.state_dir,
            backend=self.backend,
            truth=self.truth,
            pools=self.pools,
            closing=self.closing,
        )
        self.observer = HostObserver(
            truth=self.truth,
            hub=self.hub,
            daemon=self.daemon,
            consoles=self.consoles.watch,
            connections=self.consoles.connections,
            reachable=self.reachable,
        )
        self.door = HostDoor(self.host_state, self.truth, self.observer)
        self.operations = self._operations()

    def closing(self) -> bool:
        """Whether the daemon stops."""
        return self.operations.closing

    async def release(self) -> None:
        """Lets go of files and threads, when nothing is served any more."""
        await self.hub.release()
        self.consoles.release()
        self.pools.shutdown()
        self.journal.close()
        self.host_state.close()

    def _operations(self) -> Operations:
        return Operations(
            journal=self.journal,
            book=OperationBook(),
            pools=self.pools,
            undo=self._undo,
            break_off=self.backend.break_off,
            listener=self.observer,
            reachable=self.reachable,
            keeps_out=self._keeps_out,
        )

    def _keeps_out(self, verb: Verb, request: Message) -> Sequence[ContractError]:
        arriving = kept_for_its_source(verb, request, self.backend.migrations)
        return (*self.door.keeps_out(verb, request), *arriving)

    def _undo(self, undo: Undo) -> None:
        """Undoes a step: of the service's own, or of the backend's."""
        if undo.action == UNDO_DOOR:
            self.door.undo(undo.arguments["before"])
        else:
            self.backend.undo(undo)


def _backend(settings: Settings, state_dir: StateDir, tls: Tls | None) -> Backend:
    settings.image_dir.mkdir(mode=0o711, parents=True, exist_ok=True)
    return load_backend(
        settings.backend,
        BackendOptions(
            state_dir=state_dir.path,
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
            host_id=state_dir.host_id,
            instance_dir=settings.instance_dir,
            peers=GrpcPeers(settings.peer_networks, tls=tls, roles=settings.roles),
            hypervisor_uri=settings.hypervisor_uri,
            migration_uri=settings.migration_uri,
            migration_tls=settings.migration_tls,
            rollback_patience_s=settings.rollback_patience_s,
        ),
    )
