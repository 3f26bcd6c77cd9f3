"""Volumes of instances, on libvirt: attached and detached.

The domain itself is the book of attachments: a volume's disk has its identity in alias
and serial number, in the configuration and in the running machine.
"""

import libvirt
from virtrpc.v1 import spec_pb2
from virtrpc.v1 import volume_pb2 as pb
from virtrpc.v1.instance_pb2 import AttachedDisk, Instance
from virtrpc.v1.spec_pb2 import BlockDevice, VolumeConnection

from backends.contract import Volumes
from backends.errors import ContractError, HypervisorError
from backends.libvirt.blueprint.slots import free_slots
from backends.libvirt.blueprint.volumes import volume_disk
from backends.libvirt.domains import Domains
from backends.libvirt.plugging import CONFIG, LIVE, Plugging
from backends.libvirt.probe import Probed
from backends.libvirt.volume_growth import VolumeGrowth
from backends.libvirt.volume_places import VolumePlaces, volume_texts
from backends.libvirt.volume_secrets import VolumeSecrets
from backends.libvirt.volume_swap import VolumeSwap
from backends.plan.needs import unmet, volume_needs
from backends.volumes import refusals
from backends.volumes.attached import find, get, is_plugged, volumes
from backends.volumes.attaching import Attaching, Claims, plan_attachment
from backends.volumes.detaching import (
    RELEASE_TIMEOUT_S,
    RETRY_INTERVAL_S,
    detach_errors,
    seconds,
)
from backends.work import Undo, Work

_FIELD = "device.volume"
_ATTACH_TIMEOUT_S = 60.0
# A guest that is still booting hears nothing, and QEMU takes a question anew after 5 s.
_UNDO_TIMEOUT_S = 60.0
_UNDO_RETRY_S = 5.0


class LibvirtVolumes(Volumes):
    """The verbs about volumes."""

    def __init__(self, domains: Domains, places: VolumePlaces, probed: Probed) -> None:
        self._domains = domains
        self._places = places
        self._probed = probed
        self._plugging = Plugging(domains)
        self._secrets = VolumeSecrets(domains)
        self._claims = Claims()
        self._growth = VolumeGrowth(domains)
        self._swap = VolumeSwap(domains, places, self._plugging, self._secrets)
        self.undo = {
            "detach_volume": self._undo_attach,
            "forget_volume_secrets": self._secrets.forget,
            **self._swap.undo,
        }

    def attach_volume(self, request: pb.AttachVolumeRequest, work: Work) -> pb.AttachVolumeResponse:
        """See Volumes."""
        domain, instance = self._domains.managed(request.instance_id)
        device = self._located(request.device)
        volume_id = device.volume.volume_id
        with self._claims.held(volume_id):
            attaching = plan_attachment(device, instance, self._domains.read_all())
            if attaching.same is None:
                timeout_s = seconds(request, "timeout", _ATTACH_TIMEOUT_S)
                work.ready(self._blockers(domain, request, attaching, timeout_s))
                self._attach(domain, instance, attaching, work)
            else:
                work.ready()
        now = self._domains.tell(domain)
        return pb.AttachVolumeResponse(disk=get(now, volume_id), instance=now)

    def detach_volume(self, request: pb.DetachVolumeRequest, work: Work) -> pb.DetachVolumeResponse:
        """See Volumes."""
        domain, instance = self._domains.managed(request.instance_id)
        disk = find(instance, request.volume_id, request.attachment_id)
        work.ready([] if disk is None else detach_errors(instance, disk))
        if disk is not None:
            self._detach(domain, instance, disk, request, work)
        else:
            self._detached_before(domain, instance, request.volume_id)
        return pb.DetachVolumeResponse(
            already_gone=disk is None, instance=self._domains.tell(domain)
        )

    def extend_volume(self, request: pb.ExtendVolumeRequest, work: Work) -> pb.ExtendVolumeResponse:
        """See Volumes."""
        domain, instance = self._domains.managed(request.instance_id)
        disk = get(instance, request.volume_id, request.attachment_id)
        size_bytes = self._growth.grow(domain, instance, disk, request.size_bytes, work)
        return pb.ExtendVolumeResponse(
            guest_size_bytes=size_bytes, instance=self._domains.tell(domain)
        )

    def swap_volume(self, request: pb.SwapVolumeRequest, work: Work) -> pb.SwapVolumeResponse:
        """See Volumes."""
        needs = tuple(volume_needs(request.new_volume, "new_volume"))
        with self._claims.held(request.new_volume.volume_id):
            return self._swap.swap(request, unmet(needs, self._probed.features), work)

    def _undo_attach(self, subject: str) -> None:
        """Takes a volume ("INSTANCE/ATTACHMENT") away that was being attached."""
        instance_id, _, attachment_id = subject.partition("/")
        domain = self._domains.find(instance_id)
        if domain is not None:
            self._plugging.forget(domain, attachment_id)
            disk = self._plugging.attached(domain, LIVE, attachment_id)
            if disk is not None and disk.target is not None and domain.isActive():
                self._plugging.release(
                    domain, disk.target, None, timeout_s=_UNDO_TIMEOUT_S, retry_s=_UNDO_RETRY_S
                )
            self._domains.tell(domain)
            if disk is None:
                self._domains.require_known(instance_id)
        self._secrets.forget(instance_id, attachment_id)

    def _located(self, device: BlockDevice) -> BlockDevice:
        located = BlockDevice()
        located.CopyFrom(device)
        located.volume.CopyFrom(self._places.storage.located(device.volume))
        return located

    def _blockers(
        self,
        domain: libvirt.virDomain,
        request: pb.AttachVolumeRequest,
        attaching: Attaching,
        timeout_s: float,
    ) -> list[ContractError]:
        volume = request.device.volume
        blockers = [
            *attaching.blockers,
            *unmet(tuple(volume_needs(volume, _FIELD)), self._probed.features),
            *volume_texts(volume, _FIELD),
            *self._slot_errors(domain, attaching),
        ]
        if not blockers:
            _, blockers = self._places.storage.looked_at(volume, field=_FIELD, timeout_s=timeout_s)
        return blockers

    def _slot_errors(self, domain: libvirt.virDomain, attaching: Attaching) -> list[ContractError]:
        """That a running machine has a root port left where one is needed."""
        if not domain.isActive():
            return []
        bus = attaching.asked.bus
        needed = bus == spec_pb2.DISK_BUS_VIRTIO or (
            bus == spec_pb2.DISK_BUS_SCSI and not self._plugging.has_scsi(domain, LIVE)
        )
        free = free_slots(self._plugging.document(domain, LIVE)) if needed else None
        return [refusals.no_slot("the machine has no free PCI slot")] if free == 0 else []

    def _attach(
        self, domain: libvirt.virDomain, instance: Instance, attaching: Attaching, work: Work
    ) -> None:
        attachment_id, volume = attaching.asked.attachment_id, attaching.disk.volume
        assert volume is not None  # noqa: S101
        subject = f"{instance.instance_id}/{attachment_id}"
        disk = volume_disk(
            attaching.disk,
            self._places.of(volume),
            instance_id=instance.instance_id,
            initiator=self._places.initiator,
        )
        work.step("attach", Undo("detach_volume", {"attachment": subject}))
        self._secrets.keep(instance.instance_id, attachment_id, volume)
        try:
            self._plugging.plug(domain, disk, CONFIG)
            work.checkpoint()
            if domain.isActive():
                disk.boot_order = None
                self._plugging.plug(domain, disk, LIVE)
        except libvirt.libvirtError as error:
            raise attach_failure(
                self._domains.failed(error, instance.instance_id), volume
            ) from error

    def _detach(
        self,
        domain: libvirt.virDomain,
        instance: Instance,
        disk: AttachedDisk,
        request: pb.DetachVolumeRequest,
        work: Work,
    ) -> None:
        if is_plugged(instance, disk):
            work.step("unplug")
            retry_s = seconds(request, "retry_interval", RETRY_INTERVAL_S) or RETRY_INTERVAL_S
            timeout_s = seconds(request, "timeout", RELEASE_TIMEOUT_S)
            self._plugging.release(
                domain, disk.device_name, work, timeout_s=timeout_s, retry_s=retry_s
            )
        work.commit()  # the guest has let go of it
        work.step("config")
        self._plugging.forget(domain, disk.attachment_id)
        work.step("secrets")
        self._secrets.forget(instance.instance_id, disk.attachment_id)
        self._places.forget_snapshots(domain, disk.volume_id)

    def _detached_before(
        self, domain: libvirt.virDomain, instance: Instance, volume_id: str
    ) -> None:
        """A call that died may have left what it only had to forget."""
        kept = {disk.attachment_id for disk in volumes(instance)}
        self._secrets.forget_others(instance.instance_id, kept)
        if find(instance, volume_id) is None:
            self._places.forget_snapshots(domain, volume_id)


def attach_failure(error: ContractError, volume: VolumeConnection) -> ContractError:
    """What a failure means after all that could be looked at was found in order.

    libvirt tells QEMU's reasons in words only; a lost libvirtd is told as what it is.
    """
    if not isinstance(error, HypervisorError):
        return error
    if volume.HasField("encryption"):
        why = "the passphrase does not open the volume"
        return refusals.encryption_mismatch(why, _FIELD)
    if volume.HasField("iscsi") or volume.HasField("rbd"):
        return refusals.storage_refused(f"the storage refuses: {error}")
    return error
