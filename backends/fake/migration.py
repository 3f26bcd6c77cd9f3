"""Live migration between fakes, by the same road as between real hosts.

Only the guest's way is short: its machine is written into a file that both fakes see,
the one at the `migration_uri` that the destination has named. Memory "goes over" in four
passes; the label `fake/live_migrate_instance.pass=delay:SECONDS` says how long each takes.
"""

import socket
import threading
from collections.abc import Sequence
from pathlib import Path

from virtrpc.v1 import migration_pb2 as pb
from virtrpc.v1.event_pb2 import EventType
from virtrpc.v1.instance_pb2 import Instance
from virtrpc.v1.spec_pb2 import DiskFormat, InstanceSpec

from backends.console_log import ConsoleLog
from backends.errors import ContractError, InvalidArgumentError, MigrationFailedError
from backends.events import event_of
from backends.fake.features import FEATURES, free_room
from backends.fake.host import FakeHost
from backends.fake.machines import CONFIG_DRIVE
from backends.images import ImageStore
from backends.migration import console
from backends.migration.book import Migration
from backends.migration.checks import COPY, cpu_blockers, name_blockers
from backends.migration.connections import Connections
from backends.migration.driver import Counters, Guest, MigrationDriver, Transfer
from backends.plan import InstancePlan
from backends.work import Work

HYPERVISOR, VERSION = "fake", "1.0.0"
FEATURES_OF_CPU = ("aes", "avx", "fake1", "fake2")
CPU = pb.ComparedCpu(
    architecture="x86_64", model="Fake-Server", vendor="Fake", features=FEATURES_OF_CPU
)
_PASS_LABEL = "fake/live_migrate_instance.pass"  # noqa: S105 - a pass over memory
_ARRIVALS = "migrations"
_PASSES, _PASS_S = 4, 0.02
_KIB = 1024


class FakeMigrationDriver(MigrationDriver):
    """Gives and takes fake guests."""

    def __init__(self, host: FakeHost, images: ImageStore, connections: Connections) -> None:
        self._host = host
        self.images = images
        self.connections = connections
        self._running: dict[str, Counters] = {}
        self._stopped: dict[str, threading.Event] = {}

    def work(self, work: Work, verb: str, instance_id: str) -> Work:
        """See MigrationDriver: with the faults that were asked for."""
        return self._host.faulty(work, verb, self._host.find(instance_id))

    def describe(self) -> pb.DestinationCheck:
        """See MigrationDriver."""
        room = free_room(self._host.instances())
        return pb.DestinationCheck(
            host_name=socket.gethostname(),
            hypervisor_type=HYPERVISOR,
            hypervisor_version=VERSION,
            host_cpu=CPU,
            free_memory_mib=max(room.memory_mib, 0),
            free_disk_bytes=max(room.disk_bytes, 0),
            post_copy=True,
            tls=True,
        )

    def compare_cpu(self, cpu: pb.ComparedCpu, *, guest: bool) -> pb.CompareCpuResponse:  # noqa: ARG002
        """See MigrationDriver: a guest can be given what the host has."""
        if cpu.model not in ("", CPU.model):
            raise InvalidArgumentError(
                f"{cpu.model} is not known here", reason="UNKNOWN_CPU_MODEL", field="cpu.model"
            )
        missing = sorted(set(cpu.features) - set(CPU.features))
        own = set(CPU.features) - set(cpu.disabled_features)
        comparison = pb.CPU_COMPARISON_SUPERSET
        if missing or cpu.architecture != CPU.architecture:
            comparison = pb.CPU_COMPARISON_INCOMPATIBLE
        elif (cpu.model or not own - set(cpu.features)) and not cpu.disabled_features:
            comparison = pb.CPU_COMPARISON_IDENTICAL
        return pb.CompareCpuResponse(comparison=comparison, missing_features=missing, host_cpu=CPU)

    def find(self, instance_id: str) -> Instance | None:
        """See MigrationDriver."""
        return self._host.find(instance_id)

    def tell(self, instance_id: str, kind: "EventType.ValueType", detail: str) -> None:
        """See MigrationDriver."""
        known = self._host.find(instance_id) or Instance(instance_id=instance_id)
        if self._host.observer is not None:
            self._host.observer.event(event_of(kind, known, detail))

    def console(self, instance_id: str) -> ConsoleLog | None:
        """See MigrationDriver."""
        return ConsoleLog.found_in(self._host.instance_folder(instance_id))

    def source(self, instance: Instance) -> pb.MigrationSource:
        """See MigrationDriver."""
        spec = instance.spec
        boot = (spec.image.kernel_image_id, spec.image.ramdisk_image_id)
        return pb.MigrationSource(
            host_name=socket.gethostname(),
            hypervisor_type=HYPERVISOR,
            hypervisor_version=VERSION,
            instance_name=instance.name,
            flavor=spec.flavor,
            machine=spec.machine,
            machine_type=instance.persistent.machine_type,
            guest_cpu=CPU,
            host_cpu=CPU,
            interfaces=spec.interfaces,
            boot_image_ids=filter(None, boot),
            disks=[
                pb.MigrationDisk(
                    device_name=disk.device_name,
                    role=disk.role,
                    format=disk.format or DiskFormat.DISK_FORMAT_RAW,
                    read_only=disk.read_only,
                    volume_id=disk.volume_id,
                    attachment_id=disk.attachment_id,
                    destination_source=disk.source if disk.volume_id else "",
                    needs_secret=bool(disk.volume_id) and disk.encrypted,
                    multi_attach=disk.multi_attach,
                    base_image_id=spec.image.image_id if disk.role == "root" else "",
                )
                for disk in instance.persistent.disks
            ],
        )

    def transfer(self, transfer: Transfer) -> Counters:
        """See MigrationDriver."""
        instance_id = transfer.migration.instance_id
        instance = self._host.get(instance_id)
        stopped = self._stopped[instance_id] = threading.Event()
        counters = self._running[instance_id] = Counters()
        try:
            self._copy(instance, counters, stopped)
            _arrival(transfer.migration_uri).write_bytes(instance.SerializeToString())
        except OSError as error:
            raise MigrationFailedError(f"the destination is out of reach: {error}") from error
        finally:
            del self._running[instance_id], self._stopped[instance_id]
        self._host.stop(instance_id, "migrated")
        self._host.undefine(instance_id)
        counters.downtime_ms = 1
        return counters

    def mend(self, transfer: Transfer) -> Counters:
        """See MigrationDriver: fake guests are never BROKEN."""
        raise MigrationFailedError(f"nothing is broken of {transfer.migration.migration_id}")

    def counters(self, instance_id: str) -> Counters | None:
        """See MigrationDriver."""
        return self._running.get(instance_id)

    def abort(self, instance_id: str) -> None:
        """See MigrationDriver."""
        if instance_id in self._stopped:
            self._stopped[instance_id].set()

    def force(self, instance_id: str, *, post_copy: bool) -> None:
        """See MigrationDriver: fake guests never outrun their copy."""

    def guest(self, instance_id: str) -> Guest:
        """See MigrationDriver."""
        return Guest.GONE if self._host.find(instance_id) is None else Guest.ALIVE

    def stop_here(self, instance_id: str) -> None:
        """See MigrationDriver: fake guests are never STUCK."""

    def go_on_here(self, migration: Migration) -> None:
        """See MigrationDriver: fake guests are never STUCK."""

    def give_up(self, migration: Migration) -> None:
        """See MigrationDriver."""
        self._host.undefine(migration.instance_id)
        if migration.data.storage == COPY:
            self._host.remove_folder(migration.instance_id)

    def blockers(
        self,
        instance_id: str,
        data: pb.MigrationData,  # noqa: ARG002 - fake files take no room
        spec: InstanceSpec,
    ) -> Sequence[ContractError]:
        """See MigrationDriver."""
        return InstancePlan(instance_id, spec).blockers(FEATURES, free_room(self._host.instances()))

    def taken(self, source: pb.MigrationSource, instance_id: str) -> Sequence[ContractError]:
        """See MigrationDriver."""
        return [
            *name_blockers(source, instance_id, self._host.instances()),
            *self._cpu_blockers(source),
        ]

    def prepare(self, data: pb.MigrationData, spec: InstanceSpec) -> None:  # noqa: ARG002
        """See MigrationDriver."""
        folder = self._host.instance_folder(data.instance_id)
        folder.mkdir(exist_ok=True)
        if data.console_log_id and ConsoleLog.found_in(folder) is None:
            log = ConsoleLog.of(folder, log_id=data.console_log_id)
            console.expect(log.path, data.console_offset)
        if data.kind == pb.MIGRATION_KIND_COLD and data.storage == COPY:
            for disk in data.disks:
                if not disk.volume_id:
                    disk.destination_source = str(disk_file(folder, disk))
        arrivals = self._host.folder / _ARRIVALS
        data.migration_uri = f"unix:{arrivals / data.migration_id}.guest"
        data.hypervisor_uri = "fake://destination/system"

    def unprepare(self, migration: Migration) -> None:
        """See MigrationDriver."""
        self._here(migration).unlink(missing_ok=True)
        if migration.data.storage == COPY and self._host.find(migration.instance_id) is None:
            self._host.remove_folder(migration.instance_id)

    def has_arrived(self, migration: Migration, *, alive: bool = False) -> bool:  # noqa: ARG002
        """See MigrationDriver."""
        if migration.cold:
            return self._host.find(migration.instance_id) is not None
        return self._here(migration).exists()

    def start(self, instance_id: str) -> None:
        """See MigrationDriver: it goes on when it is adopted."""

    def adopt(self, migration: Migration) -> Instance:
        """See MigrationDriver."""
        known = self._host.find(migration.instance_id)
        if known is not None:
            return known
        instance = Instance.FromString(self._here(migration).read_bytes())
        del instance.spec.interfaces[:]
        instance.spec.interfaces.extend(migration.data.interfaces)
        return self._host.arrive(instance)

    def _cpu_blockers(self, source: pb.MigrationSource) -> list[ContractError]:
        if not source.HasField("guest_cpu"):
            return []
        return cpu_blockers(lambda: self.compare_cpu(source.guest_cpu, guest=True))

    def _here(self, migration: Migration) -> Path:
        return self._host.folder / _ARRIVALS / f"{migration.migration_id}.guest"

    def _copy(self, instance: Instance, counters: Counters, stopped: threading.Event) -> None:
        """The guest's memory, pass by pass; raises MigrationFailedError when it is stopped."""
        total = instance.memory_kib * _KIB
        for iteration in range(1, _PASSES + 1):
            counters.iteration = iteration
            sent = total * iteration // _PASSES
            counters.memory = pb.MigrationCounter(
                total_bytes=total, processed_bytes=sent, remaining_bytes=total - sent
            )
            _, _, seconds = instance.labels.get(_PASS_LABEL, "").partition("delay:")
            if stopped.wait(float(seconds or _PASS_S)):
                raise MigrationFailedError("the transfer was stopped")


def disk_file(folder: Path, disk: pb.MigrationDisk) -> Path:
    """Where the bytes of a disk are, which of most disks are only made to be sent."""
    if disk.role == "config":
        return folder / CONFIG_DRIVE
    return folder / f"{disk.device_name}.disk"


def _arrival(migration_uri: str) -> Path:
    """The file that a destination has named."""
    return Path(migration_uri.removeprefix("unix:"))
