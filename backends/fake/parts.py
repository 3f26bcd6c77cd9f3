"""What the facets of the fake backend share."""

from backends.fake.cold_migration import FakeColdDriver
from backends.fake.faults import parse_rules
from backends.fake.features import lacking
from backends.fake.host import FakeHost
from backends.fake.interfaces import FakeDevices, FakeInterfaceHost, MemoryFilter
from backends.fake.migration import FakeMigrationDriver
from backends.fake.spawning import FakeSpawning
from backends.fake.volumes import NoKeys
from backends.firewall.book import FilterBook
from backends.firewall.firewall import HostFirewall
from backends.images import ImageStore, ImageUsers
from backends.interfaces.book import InterfaceBook
from backends.interfaces.side import InterfaceSide
from backends.loading import BackendOptions
from backends.migration.book import MigrationBook
from backends.migration.connections import Connections
from backends.migration.verbs import HostMigrations
from backends.migration.volumes import ArrivingVolumes
from backends.shares import ArrivingShares
from backends.volumes.facts import initiator_name
from backends.volumes.storage import Storage


class Parts:
    """Each is made once; a facet takes those that it needs."""

    def __init__(self, options: BackendOptions) -> None:
        folder = options.state_dir / "fake"
        self.options = options
        self.host = FakeHost(folder, parse_rules(options.fake_faults))
        self.missing, self.features = lacking(options.fake_lacks)
        self.image_store = ImageStore(options.image_dir, options.images)
        self.image_users = ImageUsers(self.image_store)
        self.storage = Storage(options.volumes, servers=False)
        self.firewall = HostFirewall(FilterBook(folder / "firewall"), MemoryFilter())
        self.side = InterfaceSide(
            InterfaceBook(folder / "prepared", self.host.instances), self.firewall, FakeDevices()
        )
        self.spawning = FakeSpawning(
            self.host, self.image_store, self.features, self.side, self.storage
        )
        self.migrations = HostMigrations(
            FakeMigrationDriver(self.host, self.image_store, self._connections()),
            FakeColdDriver(self.host, self.spawning, self.side, self.features),
            peers=options.peers,
            tls=options.migration_tls,
            patience_s=options.rollback_patience_s,
            book=MigrationBook(folder / "migrations"),
            folder=self.host.folder,
        )

    def _connections(self) -> Connections:
        volumes = ArrivingVolumes(
            self.storage,
            features=lambda: self.features,
            instances=self.host.instances,
            keys=NoKeys(),
            is_held=lambda _path: True,
        )
        initiator = initiator_name(self.options.state_dir)
        shares = ArrivingShares(self.options.share_dirs, lambda: self.features)
        host = FakeInterfaceHost(self.host)
        return Connections(host, self.side, volumes, shares, initiator=initiator)
