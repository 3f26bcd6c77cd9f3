"""What the facets of the libvirt backend share."""

from virtrpc.v1.instance_pb2 import Instance

from backends.firewall.book import FilterBook
from backends.firewall.filters import KernelFilter, table_name
from backends.firewall.firewall import HostFirewall
from backends.images import ImageStore, ImageUsers
from backends.interfaces.book import InterfaceBook
from backends.interfaces.devices import HostDevices
from backends.interfaces.side import InterfaceSide
from backends.libvirt.cold_migration import LibvirtColdDriver
from backends.libvirt.domains import Domains
from backends.libvirt.folders import InstanceFolders
from backends.libvirt.guest import LibvirtGuestAgent
from backends.libvirt.interfaces import LibvirtInterfaceHost
from backends.libvirt.migration import LibvirtMigrationDriver
from backends.libvirt.probe import Probed
from backends.libvirt.read_only_shares import NAME as READ_ONLY_PROGRAM
from backends.libvirt.spawning import Spawning
from backends.libvirt.volume_places import VolumePlaces
from backends.libvirt.volume_secrets import VolumeSecrets
from backends.loading import BackendOptions
from backends.migration.book import MigrationBook
from backends.migration.connections import Connections
from backends.migration.verbs import HostMigrations
from backends.migration.volumes import ArrivingVolumes
from backends.shares import ArrivingShares
from backends.volumes.holders import is_held


class Parts:
    """Each is made once; a facet takes those that it needs."""

    def __init__(self, options: BackendOptions) -> None:
        self.options = options
        self.folders = InstanceFolders(
            options.instance_dir or options.state_dir / "instances", host_id=options.host_id
        )
        self.domains = Domains()
        self.probed = Probed(
            dedicated_cpus=options.dedicated_cpus,
            read_only_program=options.state_dir / READ_ONLY_PROGRAM,
        )
        self.image_store = ImageStore(options.image_dir, options.images)
        self.image_users = ImageUsers(self.image_store, self.folders.folder)
        self.guest = LibvirtGuestAgent(self.domains)
        self.why_no_filter = "not asked yet"
        self.firewall = HostFirewall(
            FilterBook(options.state_dir / "firewall"), KernelFilter(table_name(options.state_dir))
        )
        self.side = InterfaceSide(
            InterfaceBook(options.state_dir / "prepared", lambda: [*self.domains.told.values()]),
            self.firewall,
            HostDevices(),
        )
        self.places = VolumePlaces(self.domains, options.volumes, options.state_dir)
        self.spawning = Spawning(
            self.domains,
            self.folders,
            self.image_store,
            self.probed,
            side=self.side,
            places=self.places,
        )
        self.migrations = self._migrations()

    def find(self, instance_id: str) -> Instance | None:
        """The instance, asked of libvirt."""
        domain = self.domains.find(instance_id)
        return None if domain is None else self.domains.read(domain)

    def _migrations(self) -> HostMigrations:
        driver = LibvirtMigrationDriver(
            self.domains,
            self.folders,
            self.image_store,
            self.probed,
            hypervisor_uri=self.options.hypervisor_uri,
            migration_uri=self.options.migration_uri,
            connections=self._connections(),
        )
        cold = LibvirtColdDriver(
            self.domains,
            self.folders,
            self.image_store,
            self.probed,
            spawning=self.spawning,
            side=self.side,
        )
        return HostMigrations(
            driver,
            cold,
            peers=self.options.peers,
            tls=self.options.migration_tls,
            patience_s=self.options.rollback_patience_s,
            book=MigrationBook(self.options.state_dir / "migrations"),
            folder=self.folders.folder,
        )

    def _connections(self) -> Connections:
        volumes = ArrivingVolumes(
            self.places.storage,
            features=lambda: self.probed.features,
            instances=self.domains.read_all,
            keys=VolumeSecrets(self.domains),
            is_held=is_held,
        )
        host = LibvirtInterfaceHost(self.domains, self.probed)
        shares = ArrivingShares(self.options.share_dirs, lambda: self.probed.features)
        return Connections(host, self.side, volumes, shares, initiator=self.places.initiator)
