"""Cold migration and resize on libvirt.

    INSTANCE/kept/…        on one host: definition and files as they were, until confirmed
    INSTANCE/.sent-vda.…   a disk with what it is based on, for a host that lacks the image

That a copy may not be started stands in its metadata, so that a daemon which has lost its
state knows it too.
"""

from collections.abc import Sequence
from pathlib import Path

import libvirt
from virtrpc.v1 import migration_pb2 as pb
from virtrpc.v1.instance_pb2 import Instance
from virtrpc.v1.spec_pb2 import BlockDevice, DiskFormat
from virtrpc.v1.types_pb2 import PowerState

from backends.errors import ContractError, NoRoomError
from backends.images import ImageStore
from backends.interfaces.side import InterfaceSide
from backends.libvirt.blueprint import unsupported
from backends.libvirt.blueprint.resize import keep_present, resize_domain
from backends.libvirt.definition import define, discard_saved, persistent, power_on, start_from_disk
from backends.libvirt.disks import copy_disk, set_base
from backends.libvirt.domains import Domains, is_active
from backends.libvirt.folders import InstanceFolders
from backends.libvirt.host_limits import host_limits
from backends.libvirt.host_room import HostRoomBook
from backends.libvirt.lifecycle import force_off
from backends.libvirt.machine_state import MachineState, forget_arrived
from backends.libvirt.memento import Memento
from backends.libvirt.own_disks import copy_files, fit_disks, own_files, remove_copies
from backends.libvirt.placement import Placement
from backends.libvirt.power import shut_down
from backends.libvirt.probe import Probed
from backends.libvirt.spawning import Settling, Spawning
from backends.libvirt.volume_devices import volume_devices
from backends.libvirt.xml.element import parse, to_text
from backends.libvirt.xml.metadata import InstanceMetadata
from backends.migration.cold_driver import Arrival, ColdDriver, Parcel
from backends.migration.parcels import goes_without_base
from backends.migration.state_files import ROLES
from backends.plan import InstancePlan
from backends.plan.room import Room
from backends.qcow2 import head_without_base, read_header
from backends.rebuild import name_blockers
from backends.redaction import redacted
from backends.specification import SpecImages
from backends.work import Undo, Work

_KEPT = "kept"
_SENT = ".sent-"
_RUNNING = PowerState.POWER_STATE_RUNNING


class LibvirtColdDriver(ColdDriver):
    """Moves domains that are off."""

    def __init__(
        self,
        domains: Domains,
        folders: InstanceFolders,
        images: ImageStore,
        probed: Probed,
        *,
        spawning: Spawning,
        side: InterfaceSide,
    ) -> None:
        self._domains = domains
        self._folders = folders
        self._images = images
        self._probed = probed
        self._spawning = spawning
        self._side = side
        self._rooms = HostRoomBook(domains, folders, probed)
        self._state = MachineState(domains, folders)

    # The source.

    def volumes(self, instance_id: str) -> Sequence[BlockDevice]:
        """See ColdDriver."""
        domain, _ = self._domains.managed(instance_id)
        return volume_devices(persistent(self._domains, domain))

    def state(self, instance: Instance) -> Sequence[pb.MigrationDisk]:
        """See ColdDriver."""
        return self._state.sent(instance)

    def unmoved(self, instance: Instance) -> Sequence[ContractError]:
        """See ColdDriver."""
        return [*self._state.unmoved(instance)]

    def shut_down(self, instance_id: str, *, timeout_s: float, retry_s: float, work: Work) -> bool:
        """See ColdDriver. A paused guest cannot react."""
        domain, instance = self._domains.managed(instance_id)
        if not is_active(domain):
            return False
        may_react = instance.power_state == _RUNNING and timeout_s > 0
        if may_react and shut_down(
            self._domains, domain, timeout_s=timeout_s, retry_s=retry_s, work=work
        ):
            return False
        force_off(self._domains, instance_id)
        return True

    def start(self, instance_id: str) -> None:
        """See ColdDriver."""
        power_on(self._domains, instance_id)
        domain = self._domains.find(instance_id)
        if domain is not None:
            self._domains.want(domain, _RUNNING)
            self._domains.tell(domain)

    def bar(self, instance_id: str, migration_id: str) -> None:
        """See ColdDriver."""
        domain = self._domains.find(instance_id)
        if domain is not None:
            self._domains.amend_own(
                domain, lambda own: setattr(own, "pending_migration", migration_id)
            )
            self._domains.tell(domain)

    def parcel(self, data: pb.MigrationData, disk: pb.MigrationDisk, work: Work) -> Parcel:
        """See ColdDriver."""
        _, instance = self._domains.managed(data.instance_id)
        if disk.role in ROLES:
            return Parcel(disk=disk, path=self._state.path(instance, disk.role))
        path = next(
            Path(d.source) for d in instance.persistent.disks if d.device_name == disk.device_name
        )
        if disk.format != DiskFormat.DISK_FORMAT_QCOW2:
            return Parcel(disk=disk, path=path)
        with path.open("rb") as file:
            header = read_header(file)
            head = head_without_base(file)
        if header is None or not header.backing_file:
            return Parcel(disk=disk, path=path)
        if goes_without_base(data, disk):
            return Parcel(disk=disk, path=path, head=head)
        whole = path.with_name(f"{_SENT}{disk.device_name}.qcow2")
        whole.unlink(missing_ok=True)
        base = SpecImages(instance.spec, self._images).root
        copy_disk(path, base, whole, to="qcow2", tick=work.checkpoint)
        return Parcel(disk=disk, path=whole)

    def forget_parcels(self, instance_id: str) -> None:
        """See ColdDriver."""
        for path in self._folders.of(instance_id).glob(f"{_SENT}*"):
            path.unlink(missing_ok=True)

    def release(self, instance_id: str) -> None:
        """See ColdDriver. Volumes are QEMU's while it runs, and nobody's when it does not."""
        self._side.give_up(instance_id)

    def take_back(self, instance_id: str) -> None:
        """See ColdDriver."""
        if self._folders.of(instance_id).exists():
            self._folders.own(instance_id)

    # One host.

    def resize_blockers(self, instance: Instance, plan: InstancePlan) -> Sequence[ContractError]:
        """See ColdDriver."""
        room = self._rooms.room()
        if instance.HasField("effective"):
            room = Room(
                memory_mib=room.memory_mib + instance.memory_kib // 1024,
                disk_bytes=room.disk_bytes,
            )
        needed = sum(
            path.stat().st_blocks * 512
            for path in own_files(self._folders.of(instance.instance_id))
        )
        full = NoRoomError(f"copies of its disks take {needed} bytes", field="flavor")
        return [
            *self._plan_blockers(plan, room),
            *name_blockers(plan, instance),
            *([full] if needed > room.disk_bytes else []),
        ]

    def keep(self, instance_id: str, work: Work) -> None:
        """See ColdDriver."""
        domain, _ = self._domains.managed(instance_id)
        folder = self._folders.make(instance_id)
        Memento(folder, _KEPT).take(to_text(persistent(self._domains, domain)))
        copy_files(folder, checkpoint=work.checkpoint)

    def put_back(self, instance_id: str) -> None:
        """See ColdDriver."""
        folder = self._folders.of(instance_id)
        remove_copies(folder)
        kept = Memento(folder, _KEPT)
        if kept.definition() is None:
            return
        force_off(self._domains, instance_id)
        self._define(instance_id, kept.put_back())
        kept.forget()

    def undo_resize(self, instance_id: str) -> None:
        """See ColdDriver."""
        force_off(self._domains, instance_id)
        self._define(instance_id, Memento(self._folders.of(instance_id), _KEPT).definition())

    def forget_kept(self, instance_id: str) -> None:
        """See ColdDriver."""
        Memento(self._folders.of(instance_id), _KEPT).forget()

    def resize(self, arrival: Arrival, work: Work) -> Instance:
        """See ColdDriver."""
        domain, instance = self._domains.managed(arrival.instance_id)
        plan = InstancePlan(arrival.instance_id, arrival.spec)
        images = SpecImages(plan.spec, self._images)
        with self._rooms.placed(plan) as (placement, lacking):
            room = self._rooms.room()
            blockers = [*self._plan_blockers(plan, room), *name_blockers(plan, instance)]
            work.ready([*lacking, *blockers, *arrival.blockers])
            work.phase("disks", percent=10)
            arrival.begun()
            folder = self._folders.of(plan.instance_id)
            fit_disks(plan, images, folder, checkpoint=work.checkpoint)
            work.phase("define", percent=40)
            work.step("define")
            self._reshape(domain, plan, images, placement, power_on=arrival.power_on)
        if arrival.power_on:
            work.phase("start", percent=60)
            work.step("start", Undo("force_off", {"instance_id": plan.instance_id}))
            start_from_disk(self._domains, domain)
        arrival.done()
        work.commit()
        return self._domains.tell(domain)

    def _reshape(
        self,
        domain: libvirt.virDomain,
        plan: InstancePlan,
        images: SpecImages,
        placement: Placement,
        *,
        power_on: bool,
    ) -> None:
        node, own = persistent(self._domains, domain), self._domains.own(domain)
        own.spec, own.pending_migration = redacted(plan.spec), ""
        own.wanted = _RUNNING if power_on else PowerState.POWER_STATE_SHUTDOWN
        place = self._spawning.place(plan, images, placement)
        resize_domain(node, plan.instance_id, own, place)
        define(self._domains, node)

    # The destination.

    def place_of(self, disk: pb.MigrationDisk) -> Path:
        """See ColdDriver."""
        return Path(disk.destination_source)

    def take(self, data: pb.MigrationData, disk: pb.MigrationDisk, arrived: Path) -> None:
        """See ColdDriver."""
        if goes_without_base(data, disk):
            image = self._images.find_disk(disk.base_image_id, field="disk.base_image_id")
            set_base(arrived, image)
        arrived.chmod(0o600)
        arrived.rename(self.place_of(disk))

    def forget_state(self, instance_id: str) -> None:
        """See ColdDriver."""
        self._state.forget_installed(instance_id)

    def make(self, arrival: Arrival, work: Work) -> Instance:
        """See ColdDriver."""
        plan, source = (
            InstancePlan(arrival.instance_id, arrival.spec),
            arrival.migration.data.source,
        )
        off = PowerState.POWER_STATE_SHUTDOWN
        own = InstanceMetadata(
            spec=redacted(plan.spec),
            created_at=source.created_at,
            metadata=dict(source.metadata),
            wanted=_RUNNING if arrival.power_on else off,
            migration_id=arrival.migration.migration_id,
        )
        settling = Settling(
            own=own,
            machine_type=source.machine_type,
            power_on=arrival.power_on,
            undefine="undefine_arrival",
            shares=source.shares,
            begun=lambda: self._begin(arrival, plan, work),
            done=arrival.done,
        )
        made = self._spawning.settle(plan, work, settling)
        forget_arrived(self._folders.of(plan.instance_id))
        return made

    def _begin(self, arrival: Arrival, plan: InstancePlan, work: Work) -> None:
        arrival.begun()
        if plan.machine.tpm is not None:
            work.step("vtpm", Undo("forget_state", {"instance_id": plan.instance_id}))
            self._state.install(plan)

    def _plan_blockers(self, plan: InstancePlan, room: Room) -> list[ContractError]:
        """What stands in the way of a plan whose root disk is there already."""
        return [
            *SpecImages(plan.spec, self._images).beside_root,
            *unsupported(plan.spec),
            *host_limits(plan, self._probed),
            *plan.blockers(self._probed.features, room),
        ]

    def _define(self, instance_id: str, definition: str | None) -> None:
        """Defines what was kept, with the devices of others as they are by now."""
        domain = self._domains.find(instance_id)
        if definition and domain is not None:
            discard_saved(self._domains, domain)
            kept = parse(definition)
            keep_present(kept, persistent(self._domains, domain))
            self._domains.tell(define(self._domains, kept))
