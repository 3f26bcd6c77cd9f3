"""The libvirt backend as a whole."""

from collections.abc import Iterable, Sequence

import libvirt
from virtrpc.v1.instance_pb2 import Instance

from backends.console_log import ConsoleLog
from backends.contract import (
    Backend,
    Facet,
    HostSample,
    HypervisorFacts,
    Observer,
    Sample,
    undo_actions,
)
from backends.errors import UnreachableError
from backends.firewall.filters import table_name, why_no_filter
from backends.libvirt.connection import Connection
from backends.libvirt.consoles import LibvirtConsoles
from backends.libvirt.counters import Counters
from backends.libvirt.cut_off import Found, make_good
from backends.libvirt.embedded import EmbeddedRoot, Reaper, is_embedded
from backends.libvirt.errors import translated
from backends.libvirt.events import Callbacks
from backends.libvirt.facets import all_facets
from backends.libvirt.handles import Handles
from backends.libvirt.holds import release_all
from backends.libvirt.lifecycle import force_off
from backends.libvirt.network_features import NOT_REAL
from backends.libvirt.overlays import Overlays
from backends.libvirt.parts import Parts
from backends.libvirt.probe import probe
from backends.libvirt.read_only_shares import write_program
from backends.libvirt.resources import HostResources
from backends.libvirt.taking_up import wait_for_machines
from backends.loading import BackendOptions
from backends.power_states import pending
from backends.work import Undo


class LibvirtBackend(Backend):
    """See backends.libvirt."""

    name = "libvirt"

    def __init__(self, options: BackendOptions) -> None:
        self._options = options
        self._parts = parts = Parts(options)
        self._domains = parts.domains
        self._facets = all_facets(parts)
        self._undo = undo_actions(self._facets)
        self._counters = Counters(parts.domains)
        self._resources = HostResources(
            parts.domains,
            parts.folders,
            parts.probed,
            pci_passthrough=options.pci_passthrough,
        )
        self._connection: Connection | None = None
        self._observer: Observer | None = None
        self._callbacks: Callbacks | None = None
        self._embedded: EmbeddedRoot | None = None
        self._found = Found()
        self._reaper: Reaper | None = None
        self.image_store = parts.image_store
        self.image_users = parts.image_users
        self.consoles = LibvirtConsoles(parts.domains, parts.probed)
        self.migrations = parts.migrations.book
        self.receptions = parts.migrations.receptions

    def open(self, observer: Observer) -> HypervisorFacts:
        """See Backend."""
        self._observer = observer
        if self._connection is None:
            self._prepare(observer)
        assert self._connection is not None  # noqa: S101
        handles = self._connection.open()
        try:
            facts = probe(
                handles.own,
                self._connection.uri,
                virt_type=self._options.virt_type,
                why_no_filter=self._parts.why_no_filter,
                into=self._parts.probed,
            )
        except libvirt.libvirtError as error:
            raise UnreachableError(str(translated(error))) from error
        probed = self._parts.probed
        if probed.virtiofsd is not None:
            write_program(probed.read_only_program, probed.virtiofsd)
        return facts

    def close(self) -> None:
        """See Backend."""
        self._parts.firewall.close()
        if self._connection is not None:
            self._connection.close()
            self._domains.close()
            self._parts.migrations.close()
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

    def settle(self) -> None:
        """See Backend."""
        self._parts.migrations.rollbacks.settle()

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
        return self._parts.folders.console_log(instance_id)

    def _prepare(self, observer: Observer) -> None:
        """What is done once, before the first open."""
        self._parts.migrations.open()
        uri = self._options.libvirt_uri
        self._begin_filtering(uri)
        if is_embedded(uri):
            self._embedded = EmbeddedRoot(uri, default=self._options.state_dir / "libvirt")
            self._reaper = Reaper()
            self._found = make_good(self._embedded.folder)
            self._domains.doubtful = self._found.doubtful
            uri = self._embedded.uri
        self._callbacks = Callbacks(self._domains)
        self._connection = Connection(uri, connected=self._connected, lost=observer.disconnected)
        self._domains.open(self._connection, observer, embedded=self._embedded)

    def _begin_filtering(self, uri: str) -> None:
        """Rules of an earlier run are in force before anything that this one does."""
        test = uri.startswith("test")
        table = table_name(self._options.state_dir)
        self._parts.why_no_filter = NOT_REAL if test else why_no_filter(table)
        self._parts.side.book.open()
        if not self._parts.why_no_filter:
            self._parts.firewall.restore()
        self._domains.before_start = self._put_filters

    def _put_filters(self, domain: libvirt.virDomain) -> None:
        """Before a machine starts: its rules may have been taken away while it was off."""
        instance = self._domains.read(domain)
        if instance.pending_migration_id:
            raise pending(instance.pending_migration_id)
        if instance.managed and not self._parts.why_no_filter:
            self._parts.side.put(instance.instance_id, instance.spec.interfaces)

    def _configure_overlaid(self) -> None:
        """Once, before anything that was cut off is undone or repeated by the configuration."""
        overlays = Overlays(self._domains)
        while self._found.overlaid:
            instance_id, devices = self._found.overlaid.popitem()
            domain = self._domains.find(instance_id)
            for device in devices if domain is not None else ():
                overlays.configure(domain, device)

    def _connected(self, handles: Handles) -> None:
        """A new generation of connections: callbacks again, everything listed again."""
        assert self._callbacks is not None  # noqa: S101
        assert self._observer is not None  # noqa: S101
        self._callbacks.register(handles.events)
        wait_for_machines(handles)
        release_all(handles)
        self._configure_overlaid()
        self._domains.tell_all()
        self._observer.connected()
