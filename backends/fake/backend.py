"""The fake backend as a whole."""

import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence

from virtrpc.v1.instance_pb2 import Instance

from backends.console_log import ConsoleLog
from backends.contract import Backend, Facet, HostSample, HypervisorFacts, Observer, Sample
from backends.errors import InstanceNotFoundError
from backends.fake.adoption import FakeAdoption
from backends.fake.consoles import FakeConsoles
from backends.fake.diagnostics import FakeDiagnostics
from backends.fake.faults import parse_rules
from backends.fake.features import lacking
from backends.fake.guest import FakeGuestAgent
from backends.fake.host import FakeHost
from backends.fake.intent import FakeIntent
from backends.fake.interfaces import FakeDevices, FakeInterfaceHost, MemoryFilter
from backends.fake.lifecycle import FakeInstanceFiles, FakeLifecycle
from backends.fake.migration import FakeMigrationDriver
from backends.fake.power import FakePower
from backends.fake.rebuild import FakeRebuild
from backends.fake.rescue import FakeRescue
from backends.fake.resources import sample_host
from backends.fake.shares import FakeShares
from backends.fake.snapshots import FakeSnapshots
from backends.fake.spawning import FakeSpawning
from backends.fake.suspension import FakeSuspension
from backends.fake.volume_snapshots import FakeVolumeSnapshots
from backends.fake.volumes import FakeVolumes
from backends.firewall.book import FilterBook
from backends.firewall.firewall import HostFirewall
from backends.firewall.verbs import HostFiltering
from backends.host_power import CommandedPower
from backends.images import ImageStore, ImageUsers
from backends.images.verbs import HostImages
from backends.interfaces.book import InterfaceBook
from backends.interfaces.side import InterfaceSide
from backends.interfaces.verbs import HostInterfaces
from backends.loading import BackendOptions
from backends.migration.book import MigrationBook
from backends.migration.verbs import HostMigrations
from backends.volumes.facts import HostVolumeFacts, initiator_name
from backends.volumes.storage import Storage
from backends.work import Undo


class FakeBackend(Backend):
    """See backends.fake."""

    name = "fake"

    def __init__(self, options: BackendOptions) -> None:
        self._options = options
        self._host = FakeHost(options.state_dir / "fake", parse_rules(options.fake_faults))
        self._missing, self._features = lacking(options.fake_lacks)
        self.image_store = ImageStore(options.image_dir, options.images)
        self.image_users = ImageUsers(self.image_store)
        self.consoles = FakeConsoles(self._host)
        images = HostImages(
            self.image_store,
            self.image_users,
            instances=self._host.instances,
            observed=lambda work, verb: self._host.faulty(work, verb, None),
        )
        guest = FakeGuestAgent(self._host)
        suspension = FakeSuspension(self._host)
        storage = Storage(options.volumes, servers=False)
        volumes = FakeVolumes(self._host, storage)
        volume_snapshots = FakeVolumeSnapshots(self._host, volumes)
        self.migrations = MigrationBook(self._host.folder / "migrations")
        self._migrations = HostMigrations(
            FakeMigrationDriver(self._host, self.image_store),
            peers=options.peers,
            book=self.migrations,
            folder=self._host.folder,
        )
        rescue = FakeRescue(self._host, self.image_store)
        shares = FakeShares(self._host, options.share_dirs, self._features)
        folder = options.state_dir / "fake"
        self._firewall = HostFirewall(FilterBook(folder / "firewall"), MemoryFilter())
        self._book = InterfaceBook(folder / "prepared", self._host.instances)
        side = InterfaceSide(self._book, self._firewall, FakeDevices())
        interface_host = FakeInterfaceHost(self._host)
        interfaces = HostInterfaces(interface_host, side)
        spawning = FakeSpawning(self._host, self.image_store, self._features, side, storage)
        rebuild = FakeRebuild(self._host, self.image_store, spawning)
        self._facets = (
            FakeLifecycle(self._host, spawning, side, self.migrations),
            FakeInstanceFiles(self._host, side),
            interfaces,
            HostFiltering(interface_host, self._firewall, FakeDevices()),
            FakePower(self._host),
            suspension,
            guest,
            FakeDiagnostics(self._host),
            FakeIntent(self._host, reclaim_after_s=options.reclaim_after_s),
            rebuild,
            rescue,
            FakeSnapshots(self._host, self.image_store),
            shares,
            images,
            volumes,
            volume_snapshots,
            HostVolumeFacts(
                find=self._host.find,
                features=lambda: self._features,
                initiator=initiator_name(options.state_dir),
            ),
            CommandedPower(
                options.host_power,
                instances=self._host.instances,
                own_way={},  # the machine that it runs on is not the host that it pretends to be
                observed=lambda work, verb: self._host.faulty(work, verb, None),
            ),
            FakeAdoption(self._host),
            *self._migrations.facets,
        )
        self._undo: Mapping[str, Callable[[str], object]] = {
            "remove_files": lambda instance_id: shutil.rmtree(
                self._host.instance_folder(instance_id), ignore_errors=True
            ),
            "restore": suspension.undo_save,
            "thaw": guest.thaw,
            "disown": self._host.disown,
            "undefine": self._host.undefine,
            "unshare": shares.undo_mount,
            "stop": lambda instance_id: self._host.stop(instance_id, "failed"),
            "take_away": side.take_away,
            **interfaces.undo,
            "power_on": self._host.power_on,
            **rebuild.undo,
            **rescue.undo,
            "detach_volume": volumes.unplug,
            "drop_snapshot": volume_snapshots.drop,
            **images.undo,
            **self._migrations.undo,
        }

    def open(self, observer: Observer) -> HypervisorFacts:
        """See Backend."""
        self._host.reset()
        self._migrations.open()
        self._book.open()
        self._firewall.restore()
        self._host.observer = observer
        observer.instances_listed(self._host.instances())
        observer.connected()
        return HypervisorFacts(
            hypervisor_type="fake",
            hypervisor_version="1.0.0",
            library="",
            library_version="",
            connection="fake",
            virt_type="fake",
            virt_type_reason="the fake backend runs no guests",
            missing=self._missing,
            features=self._features,
        )

    def close(self) -> None:
        """See Backend; the instances go with the daemon."""
        self._firewall.close()
        shutil.rmtree(self._host.folder, ignore_errors=True)

    def facets(self) -> Sequence[Facet]:
        """See Backend."""
        return self._facets

    def undo(self, undo: Undo) -> None:
        """See Backend."""
        (subject,) = undo.arguments.values()
        self._undo[undo.action](subject)

    def break_off(self, instance_id: str) -> None:
        """See Backend; what waits here notices every cancel."""

    def sample(self) -> Sequence[Sample]:
        """See Backend."""
        return self._host.samples()

    def sample_one(self, instance_id: str) -> Sample:
        """See Backend."""
        return self._host.sample_one(instance_id)

    def sample_host(self, instances: Iterable[Instance]) -> HostSample:
        """See Backend."""
        return sample_host(
            instances,
            pci_passthrough=self._options.pci_passthrough,
            dedicated_cpus=self._options.dedicated_cpus,
        )

    def console_log(self, instance_id: str) -> ConsoleLog:
        """See Backend."""
        log = ConsoleLog.found_in(self._host.instance_folder(instance_id))
        if log is None:
            raise InstanceNotFoundError(instance_id)
        return log
