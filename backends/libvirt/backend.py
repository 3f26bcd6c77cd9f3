"""The libvirt backend as a whole."""

from collections.abc import Callable, Iterable, Mapping, Sequence

import libvirt
from virtrpc.v1.instance_pb2 import Instance

from backends.console_log import ConsoleLog
from backends.contract import Backend, Facet, HostSample, HypervisorFacts, Observer, Sample
from backends.errors import UnreachableError
from backends.firewall.book import FilterBook
from backends.firewall.filters import KernelFilter, table_name, why_no_filter
from backends.firewall.firewall import HostFirewall
from backends.firewall.verbs import HostFiltering
from backends.host_power import SYSTEMD, CommandedPower
from backends.images import ImageStore, ImageUsers
from backends.images.verbs import HostImages
from backends.interfaces.book import InterfaceBook
from backends.interfaces.devices import HostDevices
from backends.interfaces.side import InterfaceSide
from backends.interfaces.verbs import HostInterfaces
from backends.libvirt.adoption import LibvirtAdoption
from backends.libvirt.connection import Connection
from backends.libvirt.consoles import LibvirtConsoles
from backends.libvirt.counters import Counters
from backends.libvirt.definition import power_on
from backends.libvirt.diagnostics import LibvirtDiagnostics
from backends.libvirt.domains import Domains
from backends.libvirt.embedded import EmbeddedRoot, Reaper, is_embedded
from backends.libvirt.errors import translated
from backends.libvirt.events import Callbacks
from backends.libvirt.folders import InstanceFolders
from backends.libvirt.guest import LibvirtGuestAgent
from backends.libvirt.handles import Handles
from backends.libvirt.intent import LibvirtIntent
from backends.libvirt.interfaces import LibvirtInterfaceHost
from backends.libvirt.lifecycle import (
    LibvirtInstanceFiles,
    LibvirtLifecycle,
    force_off,
    undefine,
)
from backends.libvirt.migration import LibvirtMigrationDriver
from backends.libvirt.network_features import NOT_REAL
from backends.libvirt.power import LibvirtPower
from backends.libvirt.probe import Probed, probe
from backends.libvirt.rebuild import LibvirtRebuild
from backends.libvirt.rescue import LibvirtRescue
from backends.libvirt.resources import HostResources
from backends.libvirt.shares import LibvirtShares
from backends.libvirt.snapshots import LibvirtSnapshots
from backends.libvirt.spawning import Spawning
from backends.libvirt.suspension import LibvirtSuspension
from backends.libvirt.volume_places import VolumePlaces
from backends.libvirt.volume_snapshots import LibvirtVolumeSnapshots
from backends.libvirt.volumes import LibvirtVolumes
from backends.loading import BackendOptions
from backends.migration.book import MigrationBook
from backends.migration.verbs import HostMigrations
from backends.volumes.facts import HostVolumeFacts
from backends.work import Undo


class LibvirtBackend(Backend):
    """See backends.libvirt."""

    name = "libvirt"

    def __init__(self, options: BackendOptions) -> None:
        self._options = options
        self._folders = InstanceFolders(
            options.instance_dir or options.state_dir / "instances", host_id=options.host_id
        )
        self._domains = Domains()
        self._counters = Counters(self._domains)
        self._probed = Probed(dedicated_cpus=options.dedicated_cpus)
        self._connection: Connection | None = None
        self._observer: Observer | None = None
        self._callbacks: Callbacks | None = None
        self._embedded: EmbeddedRoot | None = None
        self._reaper: Reaper | None = None
        self.image_store = ImageStore(options.image_dir, options.images)
        self.image_users = ImageUsers(self.image_store, self._folders.folder)
        self.consoles = LibvirtConsoles(self._domains, self._probed)
        images = HostImages(self.image_store, self.image_users, instances=self._domains.read_all)
        guest = LibvirtGuestAgent(self._domains)
        table = table_name(options.state_dir)
        self._why_no_filter = "not asked yet"
        self._firewall = HostFirewall(
            FilterBook(options.state_dir / "firewall"), KernelFilter(table)
        )
        book = InterfaceBook(options.state_dir / "prepared", lambda: [*self._domains.told.values()])
        self._side = InterfaceSide(book, self._firewall, HostDevices())
        interface_host = LibvirtInterfaceHost(self._domains, self._probed)
        interfaces = HostInterfaces(interface_host, self._side)
        places = VolumePlaces(self._domains, options.volumes, options.state_dir)
        volumes = LibvirtVolumes(self._domains, places, self._probed)
        volume_snapshots = LibvirtVolumeSnapshots(self._domains, guest)
        suspension = LibvirtSuspension(self._domains)
        snapshots = LibvirtSnapshots(self._domains, self.image_store, guest)
        spawning = Spawning(
            self._domains,
            self._folders,
            self.image_store,
            self._probed,
            side=self._side,
            places=places,
        )
        rebuild = LibvirtRebuild(self._domains, self._folders, self.image_store, spawning)
        rescue = LibvirtRescue(self._domains, self._folders, self.image_store)
        adoption = LibvirtAdoption(self._domains, self._folders, image_dir=options.image_dir)
        self.migrations = MigrationBook(options.state_dir / "migrations")
        self._migrations = HostMigrations(
            LibvirtMigrationDriver(
                self._domains,
                self._folders,
                self.image_store,
                self._probed,
                hypervisor_uri=options.hypervisor_uri,
                migration_uri=options.migration_uri,
            ),
            peers=options.peers,
            book=self.migrations,
            folder=self._folders.folder,
        )
        shares = LibvirtShares(self._domains, self._probed, options.share_dirs)
        self._facets = (
            LibvirtLifecycle(self._domains, self._folders, spawning, self._side, self.migrations),
            LibvirtInstanceFiles(self._domains, self._folders, self._side),
            interfaces,
            HostFiltering(interface_host, self._firewall, HostDevices()),
            LibvirtPower(self._domains),
            suspension,
            guest,
            LibvirtDiagnostics(self._domains),
            LibvirtIntent(self._domains, reclaim_after_s=options.reclaim_after_s),
            rebuild,
            rescue,
            snapshots,
            shares,
            images,
            volumes,
            volume_snapshots,
            HostVolumeFacts(
                find=self._find,
                features=lambda: self._probed.features,
                initiator=places.initiator,
            ),
            adoption,
            CommandedPower(options.host_power, instances=self._domains.read_all, own_way=SYSTEMD),
            *self._migrations.facets,
        )
        self._resources = HostResources(
            self._domains,
            self._folders,
            self._probed,
            pci_passthrough=options.pci_passthrough,
        )
        self._undo: Mapping[str, Callable[[str], object]] = {
            "remove_files": self._folders.remove,
            "undefine": lambda instance_id: undefine(self._domains, instance_id),
            "restore": suspension.undo_save,
            "unshare": shares.undo_mount,
            "thaw": guest.thaw,
            "disown": adoption.disown,
            "force_off": lambda instance_id: force_off(self._domains, instance_id),
            "take_away": self._side.take_away,
            **interfaces.undo,
            "power_on": lambda instance_id: power_on(self._domains, instance_id),
            **rebuild.undo,
            **rescue.undo,
            **snapshots.undo,
            "detach_volume": volumes.undo_attach,
            "forget_volume_secrets": volumes.forget_secrets,
            "forget_new_volume": volumes.swap.forget_new,
            "restore_volume_size": volumes.swap.restore_size,
            "end_block_job": volumes.swap.end_job,
            "drop_snapshot": volume_snapshots.drop,
            **images.undo,
            **self._migrations.undo,
        }

    def open(self, observer: Observer) -> HypervisorFacts:
        """See Backend."""
        self._observer = observer
        if self._connection is None:
            self._prepare(observer)
        assert self._connection is not None  # noqa: S101
        handles = self._connection.open()
        try:
            return probe(
                handles.own,
                self._connection.uri,
                virt_type=self._options.virt_type,
                why_no_filter=self._why_no_filter,
                into=self._probed,
            )
        except libvirt.libvirtError as error:
            raise UnreachableError(str(translated(error))) from error

    def close(self) -> None:
        """See Backend."""
        self._firewall.close()
        if self._connection is not None:
            self._connection.close()
            self._domains.close()
            self._migrations.close()
        if self._reaper is not None:
            self._reaper.close()
        if self._embedded is not None:
            self._embedded.close()

    def facets(self) -> Sequence[Facet]:
        """See Backend."""
        return self._facets

    def undo(self, undo: Undo) -> None:
        """See Backend."""
        (subject,) = undo.arguments.values()
        self._undo[undo.action](subject)

    def break_off(self, instance_id: str) -> None:
        """See Backend."""
        force_off(self._domains, instance_id)

    def sample(self) -> Sequence[Sample]:
        """See Backend."""
        return self._counters.sample()

    def sample_one(self, instance_id: str) -> Sample:
        """See Backend."""
        return self._counters.sample_one(instance_id)

    def sample_host(self, instances: Iterable[Instance]) -> HostSample:
        """See Backend."""
        return self._resources.sample(instances)

    def console_log(self, instance_id: str) -> ConsoleLog:
        """See Backend."""
        return self._folders.console_log(instance_id)

    def _find(self, instance_id: str) -> Instance | None:
        domain = self._domains.find(instance_id)
        return None if domain is None else self._domains.read(domain)

    def _prepare(self, observer: Observer) -> None:
        """What is done once, before the first open."""
        self._migrations.open()
        uri = self._options.libvirt_uri
        self._begin_filtering(uri)
        if is_embedded(uri):
            self._embedded = EmbeddedRoot(uri, default=self._options.state_dir / "libvirt")
            self._reaper = Reaper()
            uri = self._embedded.uri
        self._callbacks = Callbacks(self._domains, observer)
        self._connection = Connection(uri, connected=self._connected, lost=observer.disconnected)
        self._domains.open(self._connection, observer, embedded=self._embedded)

    def _begin_filtering(self, uri: str) -> None:
        """Rules of an earlier run are in force before anything that this one does."""
        test = uri.startswith("test")
        table = table_name(self._options.state_dir)
        self._why_no_filter = NOT_REAL if test else why_no_filter(table)
        self._side.book.open()
        if not self._why_no_filter:
            self._firewall.restore()
        self._domains.before_start = self._put_filters

    def _put_filters(self, domain: libvirt.virDomain) -> None:
        """Before a machine starts: its rules may have been taken away while it was off."""
        instance = self._domains.read(domain)
        if instance.managed and not self._why_no_filter:
            self._side.put(instance.instance_id, instance.spec.interfaces)

    def _connected(self, handles: Handles) -> None:
        """A new generation of connections: callbacks again, everything listed again."""
        assert self._callbacks is not None  # noqa: S101
        assert self._observer is not None  # noqa: S101
        self._callbacks.register(handles.events)
        self._domains.tell_all()
        self._observer.connected()
