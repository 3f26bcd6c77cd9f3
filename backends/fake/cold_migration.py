"""Cold migration and resize on the fake: what is off is moved by its facts.

Of an instance's disks only the config drive has bytes; the others get some when they are sent.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from virtrpc.v1 import migration_pb2 as pb
from virtrpc.v1.instance_pb2 import Instance
from virtrpc.v1.spec_pb2 import BlockDevice, DiskFormat, FirmwareType
from virtrpc.v1.types_pb2 import PowerState

from backends.errors import ContractError
from backends.fake.features import free_room
from backends.fake.host import FakeHost
from backends.fake.machines import new_instance
from backends.fake.migration import disk_file
from backends.fake.spawning import FakeSpawning
from backends.interfaces.side import InterfaceSide
from backends.migration.cold_driver import Arrival, ColdDriver, Parcel
from backends.migration.state_files import NVRAM, ROLES, TPM, state_file
from backends.plan import InstancePlan
from backends.qcow2 import empty_disk
from backends.rebuild import name_blockers
from backends.volumes.devices import device_of
from backends.work import Undo, Work

_DISK_BYTES = 1 << 20
_UEFI = (FirmwareType.FIRMWARE_TYPE_UEFI, FirmwareType.FIRMWARE_TYPE_UEFI_SECURE_BOOT)


class FakeColdDriver(ColdDriver):
    """Moves fake guests that are off."""

    def __init__(
        self,
        host: FakeHost,
        spawning: FakeSpawning,
        side: InterfaceSide,
        features: Mapping[str, str],
    ) -> None:
        self._host = host
        self._spawning = spawning
        self._side = side
        self._features = features
        self._kept: dict[str, Instance] = {}

    def volumes(self, instance_id: str) -> Sequence[BlockDevice]:
        """See ColdDriver."""
        disks = self._host.get(instance_id).persistent.disks
        found = (device_of(disk) for disk in disks if disk.volume_id)
        return [device for device in found if device is not None]

    def state(self, instance: Instance) -> Sequence[pb.MigrationDisk]:
        """See ColdDriver."""
        machine = InstancePlan(instance.instance_id, instance.spec).machine
        has = {NVRAM: machine.firmware in _UEFI, TPM: machine.tpm is not None}
        return [state_file(role, _DISK_BYTES) for role in ROLES if has[role]]

    def unmoved(self, instance: Instance) -> Sequence[ContractError]:  # noqa: ARG002 - all goes
        """See ColdDriver."""
        return ()

    def shut_down(
        self,
        instance_id: str,
        *,
        timeout_s: float,
        retry_s: float,  # noqa: ARG002 - a guest that obeys at once
        work: Work,  # noqa: ARG002
    ) -> bool:
        """See ColdDriver."""
        off = self._host.get(instance_id).power_state == PowerState.POWER_STATE_SHUTDOWN
        forced = not off and timeout_s == 0
        self._host.stop(instance_id, "destroyed" if forced else "shutdown")
        return forced

    def start(self, instance_id: str) -> None:
        """See ColdDriver."""
        self._host.power_on(instance_id)

    def bar(self, instance_id: str, migration_id: str) -> None:
        """See ColdDriver."""
        if self._host.find(instance_id) is not None:
            with self._host.edit(instance_id) as instance:
                instance.pending_migration_id = migration_id

    def parcel(self, data: pb.MigrationData, disk: pb.MigrationDisk, work: Work) -> Parcel:  # noqa: ARG002
        """See ColdDriver."""
        path = disk_file(self._host.instance_folder(data.instance_id), disk)
        if not path.exists():
            qcow2 = disk.format == DiskFormat.DISK_FORMAT_QCOW2
            path.write_bytes(empty_disk(_DISK_BYTES) if qcow2 else bytes(_DISK_BYTES))
        return Parcel(disk=disk, path=path)

    def forget_parcels(self, instance_id: str) -> None:
        """See ColdDriver: they are the disks."""

    def release(self, instance_id: str) -> None:
        """See ColdDriver."""
        self._side.give_up(instance_id)

    def take_back(self, instance_id: str) -> None:
        """See ColdDriver: fake folders have no owner."""

    def resize_blockers(self, instance: Instance, plan: InstancePlan) -> Sequence[ContractError]:
        """See ColdDriver."""
        others = [i for i in self._host.instances() if i.instance_id != instance.instance_id]
        return [
            *plan.blockers(self._features, free_room(others)),
            *name_blockers(plan, instance),
        ]

    def keep(self, instance_id: str, work: Work) -> None:  # noqa: ARG002 - it takes no time
        """See ColdDriver."""
        self._kept[instance_id] = self._host.get(instance_id)

    def put_back(self, instance_id: str) -> None:
        """See ColdDriver."""
        self.undo_resize(instance_id)
        self.forget_kept(instance_id)

    def undo_resize(self, instance_id: str) -> None:
        """See ColdDriver."""
        before = self._kept.get(instance_id)
        if before is None or self._host.find(instance_id) is None:
            return
        self._host.stop(instance_id, "destroyed")
        with self._host.edit(instance_id) as instance:
            instance.CopyFrom(_with_present_devices(before, instance))

    def forget_kept(self, instance_id: str) -> None:
        """See ColdDriver."""
        self._kept.pop(instance_id, None)

    def resize(self, arrival: Arrival, work: Work) -> Instance:
        """See ColdDriver."""
        instance_id = arrival.instance_id
        plan = InstancePlan(instance_id, arrival.spec)
        wrong = self.resize_blockers(self._host.get(instance_id), plan)
        work.ready([*wrong, *arrival.blockers])
        work.phase("disks", percent=10)
        arrival.begun()
        work.phase("define", percent=50)
        work.step("define")
        self._redefine(plan)
        if arrival.power_on:
            work.phase("start", percent=80)
            work.step("start", Undo("stop", {"instance_id": instance_id}))
            self._host.start(instance_id)
        arrival.done()
        work.commit()
        return self._host.get(instance_id)

    def place_of(self, disk: pb.MigrationDisk) -> Path:
        """See ColdDriver."""
        return Path(disk.destination_source)

    def take(self, data: pb.MigrationData, disk: pb.MigrationDisk, arrived: Path) -> None:  # noqa: ARG002
        """See ColdDriver."""
        arrived.rename(self.place_of(disk))

    def forget_state(self, instance_id: str) -> None:
        """See ColdDriver: it is used where it arrives."""

    def make(self, arrival: Arrival, work: Work) -> Instance:
        """See ColdDriver."""
        instance_id, source = arrival.instance_id, arrival.migration.data.source
        plan = InstancePlan(instance_id, arrival.spec)
        labelled = Instance(labels=plan.spec.labels)  # nothing of it is here to be asked
        work = self._host.faulty(work, "finish_migration", labelled)
        with self._side.claimed(instance_id, plan.spec.interfaces) as taken:
            room = free_room(self._host.instances())
            work.ready([*plan.blockers(self._features, room), *taken])
            work.phase("disks", percent=10)
            arrival.begun()
            self._spawning.make_instance(plan, work, power_on=arrival.power_on)
        with self._host.edit(instance_id) as instance:
            instance.created_at.CopyFrom(source.created_at)
            instance.metadata.update(source.metadata)
            instance.shares.extend(source.shares)
        arrival.done()
        work.commit()
        self._side.book.give_up(instance_id)
        return self._host.get(instance_id)

    def _redefine(self, plan: InstancePlan) -> None:
        fresh = new_instance(plan, self._host.instance_folder(plan.instance_id))
        with self._host.edit(plan.instance_id) as edited:
            there = {disk.volume_id for disk in fresh.persistent.disks}
            volumes = [
                d for d in edited.persistent.disks if d.volume_id and d.volume_id not in there
            ]
            fresh.persistent.disks.extend(volumes)
            edited.spec.CopyFrom(fresh.spec)
            edited.persistent.CopyFrom(fresh.persistent)
            edited.max_memory_kib, edited.memory_kib = fresh.max_memory_kib, fresh.memory_kib
            edited.vcpus = fresh.vcpus
            edited.ClearField("pending_migration_id")


def _with_present_devices(kept: Instance, present: Instance) -> Instance:
    """An instance as it was kept, with what belongs to others, or was said since, as it is."""
    made = Instance()
    made.CopyFrom(kept)
    machine, now = made.persistent, present.persistent
    own = [disk for disk in machine.disks if not disk.volume_id]
    volumes = [disk for disk in now.disks if disk.volume_id]
    machine.ClearField("disks")
    machine.disks.extend([*own, *volumes])
    machine.ClearField("interfaces")
    machine.interfaces.extend(now.interfaces)
    made.spec.ClearField("interfaces")
    made.spec.interfaces.extend(present.spec.interfaces)
    made.metadata.clear()
    made.metadata.update(present.metadata)
    made.bootable = present.bootable
    made.ClearField("reclaim_at")
    if present.HasField("reclaim_at"):
        made.reclaim_at.CopyFrom(present.reclaim_at)
    return made
