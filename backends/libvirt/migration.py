"""Live migration between hosts with a libvirtd each."""

import socket
from collections.abc import Sequence

import libvirt
from virtrpc.v1 import migration_pb2 as pb
from virtrpc.v1.event_pb2 import EventType
from virtrpc.v1.instance_pb2 import Instance
from virtrpc.v1.spec_pb2 import InstanceSpec
from virtrpc.v1.types_pb2 import PowerState

from backends.console_log import ConsoleLog
from backends.errors import (
    ContractError,
    InstanceNotFoundError,
    WrongStateError,
)
from backends.events import event_of
from backends.images import ImageStore
from backends.libvirt import transfer as transfers
from backends.libvirt.arrivals import Arrivals, lacks_nothing
from backends.libvirt.blueprint import unsupported
from backends.libvirt.cpu_comparison import CpuComparer
from backends.libvirt.departures import Departures
from backends.libvirt.domains import Domains
from backends.libvirt.errors import is_gone, translating
from backends.libvirt.folders import InstanceFolders
from backends.libvirt.host_limits import host_limits
from backends.libvirt.host_room import HostRoomBook
from backends.libvirt.lifecycle import force_off, undefine
from backends.libvirt.machine_state import forget_arrived
from backends.libvirt.migration_features import post_copy_lacks, tls_lacks
from backends.libvirt.probe import Probed
from backends.migration.book import Migration
from backends.migration.checks import COPY, cpu_blockers, name_blockers
from backends.migration.connections import Connections
from backends.migration.driver import Counters, Guest, MigrationDriver, Transfer
from backends.plan import InstancePlan
from backends.specification import SpecImages

_ARRIVING = (libvirt.VIR_DOMAIN_PAUSED_MIGRATION, libvirt.VIR_DOMAIN_PAUSED_STARTING_UP)
# After the last of its memory, or as libvirtd finds it when it was killed then.
_STUCK = (libvirt.VIR_DOMAIN_PAUSED_MIGRATION, libvirt.VIR_DOMAIN_PAUSED_UNKNOWN)
_BROKEN = (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_POSTCOPY_FAILED)
_OFF = (libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_CRASHED)


class LibvirtMigrationDriver(MigrationDriver):
    """Gives guests to another libvirtd, and takes them from it."""

    def __init__(
        self,
        domains: Domains,
        folders: InstanceFolders,
        images: ImageStore,
        probed: Probed,
        *,
        hypervisor_uri: str,
        migration_uri: str,
        connections: Connections,
    ) -> None:
        self._domains = domains
        self._folders = folders
        self._probed = probed
        self._rooms = HostRoomBook(domains, folders, probed)
        self._departures = Departures(domains)
        self._arrivals = Arrivals(folders, images)
        self._cpus = CpuComparer(domains, probed)
        self._hypervisor_uri = hypervisor_uri
        self._migration_uri = migration_uri
        self.images = images
        self.connections = connections

    # Either host.

    def describe(self) -> pb.DestinationCheck:
        """See MigrationDriver."""
        room = self._rooms.room()
        connection = self._domains.connection.handles.own
        with translating():
            hypervisor, version = connection.getType(), connection.getVersion()
        return pb.DestinationCheck(
            host_name=socket.gethostname(),
            hypervisor_type=hypervisor,
            hypervisor_version=_dotted(version),
            host_cpu=self._cpus.host_cpu(),
            free_memory_mib=room.memory_mib,
            free_disk_bytes=room.disk_bytes,
            post_copy=not post_copy_lacks(),
            tls=not tls_lacks(),
        )

    def compare_cpu(self, cpu: pb.ComparedCpu, *, guest: bool) -> pb.CompareCpuResponse:
        """See MigrationDriver."""
        return self._cpus.compare(cpu, guest=guest)

    def find(self, instance_id: str) -> Instance | None:
        """See MigrationDriver."""
        domain = self._domains.find(instance_id)
        return None if domain is None else self._domains.read(domain)

    def tell(self, instance_id: str, kind: "EventType.ValueType", detail: str) -> None:
        """See MigrationDriver."""
        known = self._domains.told.get(instance_id) or Instance(instance_id=instance_id)
        if self._domains.observer is not None:
            self._domains.observer.event(event_of(kind, known, detail))

    def console(self, instance_id: str) -> ConsoleLog | None:
        """See MigrationDriver."""
        return ConsoleLog.found_in(self._folders.of(instance_id))

    # The source.

    def source(self, instance: Instance) -> pb.MigrationSource:
        """See MigrationDriver."""
        return self._departures.describe(instance, self.describe())

    def transfer(self, transfer: Transfer) -> Counters:
        """See MigrationDriver."""
        return self._moved(transfer)

    def mend(self, transfer: Transfer) -> Counters:
        """See MigrationDriver."""
        return self._moved(transfer, more_flags=libvirt.VIR_MIGRATE_POSTCOPY_RESUME)

    def _moved(self, transfer: Transfer, *, more_flags: int = 0) -> Counters:
        domain, _ = self._domains.managed(transfer.migration.instance_id)
        if not transfer.hypervisor_uri:
            raise WrongStateError(
                "neither the request nor the destination says where its libvirtd is",
                reason="NO_HYPERVISOR_URI",
                field="hypervisor_uri",
            )
        return transfers.move(self._domains, domain, transfer, more_flags=more_flags)

    def counters(self, instance_id: str) -> Counters | None:
        """See MigrationDriver."""
        domain = self._domains.find(instance_id)
        try:
            return None if domain is None else transfers.running_counters(domain)
        except libvirt.libvirtError as error:
            raise self._domains.failed(error) from error

    def abort(self, instance_id: str) -> None:
        """See MigrationDriver."""
        domain = self._domains.find(instance_id)
        if domain is not None:
            transfers.abort(domain)

    def force(self, instance_id: str, *, post_copy: bool) -> None:
        """See MigrationDriver."""
        domain = self._domains.find(instance_id)
        if domain is None:
            return
        try:
            if post_copy:
                domain.migrateStartPostCopy()
            else:
                domain.suspend()
        except libvirt.libvirtError as error:
            if not is_gone(error):
                raise self._domains.failed(error, instance_id) from error

    def guest(self, instance_id: str) -> Guest:
        """See MigrationDriver."""
        domain = self._domains.find(instance_id)
        if domain is None:
            return Guest.GONE
        try:
            with translating(instance_id):
                state, reason = domain.state()
        except InstanceNotFoundError:
            return Guest.GONE
        if state in _OFF:
            return Guest.OFF
        if (state, reason) == _BROKEN:
            return Guest.BROKEN
        stuck = state == libvirt.VIR_DOMAIN_PAUSED and reason in _STUCK
        return Guest.STUCK if stuck else Guest.ALIVE

    def stop_here(self, instance_id: str) -> None:
        """See MigrationDriver."""
        force_off(self._domains, instance_id)

    def go_on_here(self, migration: Migration) -> None:
        """See MigrationDriver."""
        if not migration.data.paused:
            self._resume(migration.instance_id)

    def give_up(self, migration: Migration) -> None:
        """See MigrationDriver."""
        copied = migration.data.storage == COPY
        force_off(self._domains, migration.instance_id)
        undefine(self._domains, migration.instance_id, keep_variables=not copied)
        if copied:
            self._folders.remove(migration.instance_id)

    # The destination.

    def blockers(
        self, instance_id: str, data: pb.MigrationData, spec: InstanceSpec
    ) -> Sequence[ContractError]:
        """See MigrationDriver."""
        plan, images = InstancePlan(instance_id, spec), SpecImages(spec, self.images)
        absent = [] if lacks_nothing(data) else [*images.blockers]
        if data.kind == pb.MIGRATION_KIND_COLD:
            absent = images.beside_root  # a disk comes whole where its image is not here
        room = self._rooms.room()
        if data.storage == COPY and self._folders.is_foreign(instance_id):
            why = "its folder here is another host's: both see the same directory"
            absent.append(WrongStateError(why, reason="STORAGE_SHARED"))
        return [
            *absent,
            *unsupported(spec),
            *host_limits(plan, self._probed),
            *plan.blockers(self._probed.features, room),
        ]

    def taken(self, source: pb.MigrationSource, instance_id: str) -> Sequence[ContractError]:
        """See MigrationDriver."""
        namesake = self._domains.find_name(source.instance_name) if source.instance_name else None
        named = [] if namesake is None else [self._domains.read(namesake)]
        others = [instance for instance in named if instance.instance_id != instance_id]
        return [
            *name_blockers(source, instance_id, others),
            *self._machine_blockers(source),
            *self._cpu_blockers(source),
        ]

    def prepare(self, data: pb.MigrationData, spec: InstanceSpec) -> None:
        """See MigrationDriver."""
        self._arrivals.prepare(data, spec)
        data.hypervisor_uri, data.migration_uri = self._hypervisor_uri, self._migration_uri

    def unprepare(self, migration: Migration) -> None:
        """See MigrationDriver."""
        instance_id, copied = migration.instance_id, migration.data.storage == COPY
        domain = self._domains.find(instance_id)
        if domain is not None and self._own_id(domain) == migration.migration_id:
            force_off(self._domains, instance_id)  # it has never run
            undefine(self._domains, instance_id, keep_variables=not copied)
            domain = self._domains.find(instance_id)
        if domain is None:
            forget_arrived(self._folders.of(instance_id))
        if copied and domain is None:
            self._folders.remove(instance_id)

    def has_arrived(self, migration: Migration, *, alive: bool = False) -> bool:
        """See MigrationDriver."""
        domain = self._domains.find(migration.instance_id)
        if domain is None:
            return False
        try:
            with translating(migration.instance_id):
                state, reason = domain.state()
        except InstanceNotFoundError:
            return False
        if state == libvirt.VIR_DOMAIN_PAUSED and reason in _ARRIVING:
            return False
        if alive and state in _OFF:
            return False
        return self._own_id(domain) == migration.migration_id

    def start(self, instance_id: str) -> None:
        """See MigrationDriver."""
        self._resume(instance_id)

    def adopt(self, migration: Migration) -> Instance:
        """See MigrationDriver."""
        domain, instance = self._domains.managed(migration.instance_id)
        self._folders.own(migration.instance_id)
        if instance.power_state == PowerState.POWER_STATE_RUNNING:
            self._domains.want(domain, PowerState.POWER_STATE_RUNNING)
        return self._domains.tell(domain)

    def _resume(self, instance_id: str) -> None:
        """Lets a guest go on that stands still; nothing where it runs, is off or unknown."""
        domain = self._domains.find(instance_id)
        try:
            if domain is not None and domain.state()[0] == libvirt.VIR_DOMAIN_PAUSED:
                domain.resume()
        except libvirt.libvirtError as error:
            raise self._domains.failed(error, instance_id) from error

    def _own_id(self, domain: libvirt.virDomain) -> str:
        """The migration by which a domain came; empty: by none, or it is not ours."""
        try:
            return self._domains.own(domain).migration_id
        except InstanceNotFoundError:
            return ""

    def _machine_blockers(self, source: pb.MigrationSource) -> list[ContractError]:
        if not source.machine_type or source.machine_type in self._probed.machine_types:
            return []
        why = f"the hypervisor here has no machine type {source.machine_type}"
        return [
            WrongStateError(why, reason="MACHINE_TYPE_UNSUPPORTED", field="source.machine_type")
        ]

    def _cpu_blockers(self, source: pb.MigrationSource) -> list[ContractError]:
        """A guest's CPU has to be offered; one that is the host's own has to be had."""
        guest = source.HasField("guest_cpu")
        if not guest and not (source.HasField("host_cpu") and source.machine.cpu_model):
            return []
        cpu = source.guest_cpu if guest else source.host_cpu
        return cpu_blockers(lambda: self._cpus.compare(cpu, guest=guest))


def _dotted(version: int) -> str:
    return f"{version // 1_000_000}.{version // 1000 % 1000}.{version % 1000}"
