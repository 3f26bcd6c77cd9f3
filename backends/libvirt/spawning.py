"""The making of an instance: everything is checked, then made step by step, each undone.

image → disks → network → define → start
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import libvirt
from virtrpc.v1.instance_pb2 import Instance, Share
from virtrpc.v1.types_pb2 import PowerState

from backends.console_log import ConsoleLog
from backends.errors import ContractError
from backends.images import ImageStore
from backends.interfaces.side import InterfaceSide
from backends.libvirt.blueprint import Place, domain_xml, unsupported
from backends.libvirt.domains import Domains
from backends.libvirt.folders import InstanceFolders
from backends.libvirt.host_limits import host_limits
from backends.libvirt.host_room import HostRoomBook
from backends.libvirt.memento import Memento
from backends.libvirt.networks import network_errors
from backends.libvirt.own_disks import (
    fit_disks,
    kept_files,
    make_disks,
    own_files,
    remove_files,
)
from backends.libvirt.placement import Placement
from backends.libvirt.probe import Probed
from backends.libvirt.volume_places import VolumePlaces, volume_texts
from backends.libvirt.volume_secrets import VolumeSecrets, secrets_of
from backends.libvirt.xml.metadata import InstanceMetadata
from backends.libvirt.xml.shares import share_device, with_share
from backends.plan import InstancePlan
from backends.plan.room import Room
from backends.redaction import redacted
from backends.specification import (
    SpecImages,
    boot_source_blockers,
    existing,
    instance_name,
)
from backends.volumes.spawning import spawn_errors
from backends.work import Undo, Work


def _nothing() -> None:
    """Nobody is told."""


@dataclass(frozen=True, kw_only=True)
class Settling:
    """How an instance comes to be whose disks are there, made elsewhere."""

    own: InstanceMetadata
    machine_type: str = ""
    power_on: bool = True
    shares: Sequence[Share] = ()
    undefine: str = "undefine"
    """The undo of its definition."""
    begun: Callable[[], None] = _nothing
    """Called when something is about to change."""
    done: Callable[[], None] = _nothing
    """Called just before the point of no return."""


class Spawning:
    """Makes instances that are not there yet."""

    def __init__(
        self,
        domains: Domains,
        folders: InstanceFolders,
        images: ImageStore,
        probed: Probed,
        *,
        side: InterfaceSide,
        places: VolumePlaces,
    ) -> None:
        self._domains = domains
        self._folders = folders
        self._images = images
        self._probed = probed
        self._side = side
        self._places = places
        self._secrets = VolumeSecrets(domains)
        self._rooms = HostRoomBook(domains, folders, probed)

    def spawn(
        self,
        plan: InstancePlan,
        work: Work,
        *,
        keep_ephemeral: bool = False,
        told: Callable[[list[ContractError]], list[ContractError]] = list,
    ) -> Instance:
        """Checks a plan, then makes it and starts it.

        Ephemeral disks that an instance of that id has left here may be kept. `told` may
        say blockers otherwise.
        """
        images = SpecImages(plan.spec, self._images)
        interfaces = plan.spec.interfaces
        with (
            self._rooms.placed(plan) as (placement, lacking),
            self._side.claimed(plan.instance_id, interfaces) as taken,
        ):
            work.ready(told([*self._blockers(plan, images), *lacking, *taken]))
            place = self._make_files(plan, images, placement, work, keep_ephemeral=keep_ephemeral)
            own = InstanceMetadata(
                spec=redacted(plan.spec),
                metadata=dict(plan.spec.metadata),
                wanted=PowerState.POWER_STATE_RUNNING,
            )
            own.created_at.GetCurrentTime()
            return self._make_domain(plan, place, work, Settling(own=own))

    def settle(self, plan: InstancePlan, work: Work, settling: Settling) -> Instance:
        """Makes an instance of disks that are in its folder, after the checks; disks may grow."""
        images, folder = SpecImages(plan.spec, self._images), self._folders.of(plan.instance_id)
        room = self._rooms.room()
        there = sum(path.stat().st_blocks * 512 for path in own_files(folder))
        room = Room(memory_mib=room.memory_mib, disk_bytes=room.disk_bytes + there)
        with (
            self._rooms.placed(plan) as (placement, lacking),
            self._side.claimed(plan.instance_id, plan.spec.interfaces) as taken,
        ):
            work.ready([*images.beside_root, *self._plan_blockers(plan, room), *lacking, *taken])
            work.phase("disks", percent=10)
            settling.begun()
            fit_disks(plan, images, folder, checkpoint=work.checkpoint)
            place = self._whole_place(plan, images, placement)
            place = replace(place, machine_type=settling.machine_type)
            return self._make_domain(plan, place, work, settling)

    def place(self, plan: InstancePlan, images: SpecImages, placement: Placement) -> Place:
        """What of the host goes into the domain of a plan, but for its volumes."""
        folder = self._folders.of(plan.instance_id)
        log = ConsoleLog.found_in(folder) or ConsoleLog.new(folder)
        return Place(
            virt_type=self._probed.virt_type,
            emulator=self._probed.emulator,
            root_disk=folder / "root.qcow2" if plan.spec.image.image_id else None,
            kernel=images.kernel,
            ramdisk=images.ramdisk,
            console_log=log.path,
            placement=placement,
            initiator=self._places.initiator,
        )

    def _whole_place(self, plan: InstancePlan, images: SpecImages, placement: Placement) -> Place:
        volumes = {
            disk.attachment_id: self._places.of(disk.volume)
            for disk in plan.disks
            if disk.volume is not None
        }
        return replace(self.place(plan, images, placement), volumes=volumes)

    def rebuild_blockers(self, plan: InstancePlan, images: SpecImages) -> list[ContractError]:
        """What stands in the way of other disks for an instance that has its place already."""
        return [
            *images.blockers,
            *boot_source_blockers(plan.spec),
            *unsupported(plan.spec),
            *plan.disk_blockers(self._probed.features, self._rooms.room()),
        ]

    def _blockers(self, plan: InstancePlan, images: SpecImages) -> list[ContractError]:
        return [
            *images.blockers,
            *self._plan_blockers(plan, self._rooms.room()),
        ]

    def _plan_blockers(self, plan: InstancePlan, room: Room) -> list[ContractError]:
        """All but that its images are here."""
        return [
            *boot_source_blockers(plan.spec),
            *unsupported(plan.spec),
            *host_limits(plan, self._probed),
            *plan.blockers(self._probed.features, room),
            *self._network_blockers(plan),
            *self._volume_errors(plan),
        ]

    def _network_blockers(self, plan: InstancePlan) -> list[ContractError]:
        """Of interfaces that this host can have at all."""
        return [
            error
            for index, interface in enumerate(plan.spec.interfaces)
            if not self._probed.features.get(f"interface_{interface.WhichOneof('network')}", "")
            for error in network_errors(self._domains, interface, f"spec.interfaces[{index}]")
        ]

    def _volume_errors(self, plan: InstancePlan) -> list[ContractError]:
        volumes = [disk for disk in plan.disks if disk.volume is not None]
        if not volumes:
            return []
        texts = (volume_texts(d.volume, d.field) for d in volumes if d.volume is not None)
        ids = (disk.attachment_id for disk in volumes)
        keyed = [one for one in ids if self._secrets.are_kept(plan.instance_id, one)]
        return [
            *spawn_errors(plan, self._places.storage, self._domains.read_all(), keyed=keyed),
            *(error for errors in texts for error in errors),
        ]

    def _make_files(
        self,
        plan: InstancePlan,
        images: SpecImages,
        placement: Placement,
        work: Work,
        *,
        keep_ephemeral: bool,
    ) -> Place:
        instance_id = plan.instance_id
        work.phase("image", percent=5, message=plan.spec.image.image_id)
        work.phase("disks", percent=10, message=instance_name(instance_id, plan.spec))
        folder = self._folders.of(instance_id)
        keep = kept_files(plan, folder) if keep_ephemeral else frozenset[str]()
        if keep:
            work.step("files", Undo("put_back", {"instance_id": instance_id}))
            Memento(folder).take("")
            remove_files(folder, keep=keep)
        else:
            work.step("files", Undo("remove_files", {"instance_id": instance_id}))
            self._folders.remove(instance_id)  # what an instance of that id once left
            self._folders.make(instance_id)
        make_disks(plan, images, folder, checkpoint=work.checkpoint, keep=keep)
        return self._whole_place(plan, images, placement)

    def _make_domain(
        self, plan: InstancePlan, place: Place, work: Work, settling: Settling
    ) -> Instance:
        instance_id = plan.instance_id
        place.console_log.touch(mode=0o600)
        work.phase("network", percent=30)
        if plan.spec.interfaces:
            work.step("network", Undo("take_away", {"instance_id": instance_id}))
            self._side.put(instance_id, plan.spec.interfaces)
        self._keep_secrets(plan, work)
        try:
            work.phase("define", percent=40)
            work.step("define", Undo(settling.undefine, {"instance_id": instance_id}))
            xml = domain_xml(instance_id, settling.own, place)
            for share in settling.shares:
                program = self._probed.read_only_program
                xml = with_share(xml, share_device(share, read_only_program=program))
            domain = self._define(plan, xml)
            if settling.power_on:
                work.phase("start", percent=50)
                work.step("start", Undo("force_off", {"instance_id": instance_id}))
                self._domains.start(domain)
        except libvirt.libvirtError as error:
            raise self._domains.failed(error) from error
        settling.done()
        work.commit()
        self._side.book.give_up(instance_id)
        Memento(place.folder).forget()
        return self._domains.tell(domain)

    def _keep_secrets(self, plan: InstancePlan, work: Work) -> None:
        volumes = [disk for disk in plan.disks if disk.volume is not None]
        if not any(disk.volume is not None and any(secrets_of(disk.volume)) for disk in volumes):
            return
        undo = Undo("forget_volume_secrets", {"instance_id": plan.instance_id})
        work.step("secrets", undo)
        for disk in volumes:
            if disk.volume is not None:
                self._secrets.keep(plan.instance_id, disk.attachment_id, disk.volume)

    def _define(self, plan: InstancePlan, xml: str) -> libvirt.virDomain:
        try:
            return self._domains.connection.handles.own.defineXML(xml)
        except libvirt.libvirtError:
            # Another instance may have taken the name since the checks.
            taken = self._domains.find_name(instance_name(plan.instance_id, plan.spec))
            if taken is not None:
                existing(plan.instance_id, plan.spec, [self._domains.read(taken)])
            raise
