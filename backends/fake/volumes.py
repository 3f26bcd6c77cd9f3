"""Volumes on the fake: files are looked at as on a real host, servers are taken to be there."""

from collections.abc import Iterator
from contextlib import contextmanager

from virtrpc.v1 import volume_pb2 as pb
from virtrpc.v1.instance_pb2 import AttachedDisk, Instance
from virtrpc.v1.spec_pb2 import BlockDevice, VolumeConnection
from virtrpc.v1.types_pb2 import PowerState

from backends.contract import Volumes
from backends.errors import ContractError
from backends.fake.faults import KEEPS_DEVICES_LABEL, FaultyWork
from backends.fake.host import FakeHost
from backends.fake.machines import machines
from backends.power_states import power_blockers
from backends.volumes import refusals
from backends.volumes.attached import find, get, is_plugged
from backends.volumes.attaching import (
    ATTACHABLE,
    Attaching,
    Claims,
    plan_attachment,
)
from backends.volumes.detaching import RELEASE_TIMEOUT_S, detach_errors, seconds
from backends.volumes.storage import Storage
from backends.volumes.swapping import Swap, chain_errors, plan_swap
from backends.work import Undo, Work

_GIB = 1 << 30
_RUNNING, _PAUSED = PowerState.POWER_STATE_RUNNING, PowerState.POWER_STATE_PAUSED


class NoKeys:
    """See backends.migration.volumes.VolumeKeys: what is opened by nobody needs no key."""

    def keep(self, instance_id: str, attachment_id: str, volume: VolumeConnection) -> None:
        """See VolumeKeys."""

    def forget(self, instance_id: str) -> None:
        """See VolumeKeys."""


class FakeVolumes(Volumes):
    """Attached volumes are facts of an instance; their sizes are kept beside."""

    def __init__(self, host: FakeHost, storage: Storage) -> None:
        self._host = host
        self._storage = storage
        self._chains = host.chains
        self._claims = Claims()
        self._sizes: dict[str, int] = {}
        self.undo = {"detach_volume": self._unplug}

    def attach_volume(self, request: pb.AttachVolumeRequest, work: Work) -> pb.AttachVolumeResponse:
        """See Volumes."""
        instance = self._host.get(request.instance_id)
        faulty = self._host.faulty(work, "attach_volume", instance)
        attaching = self._planned(request.device, instance)
        volume = request.device.volume
        with self._claims.held(volume.volume_id):
            blockers = attaching.blockers
            if attaching.same is None and not blockers:
                blockers = [*blockers, *self._storage_errors(volume, "device.volume")]
            faulty.ready(blockers)
            if attaching.same is None:
                subject = f"{instance.instance_id}/{attaching.asked.attachment_id}"
                faulty.step("attach", Undo("detach_volume", {"attachment": subject}))
                self._plug(instance.instance_id, attaching.asked)
        now = self._host.get(request.instance_id)
        return pb.AttachVolumeResponse(disk=get(now, volume.volume_id), instance=now)

    def detach_volume(self, request: pb.DetachVolumeRequest, work: Work) -> pb.DetachVolumeResponse:
        """See Volumes."""
        instance = self._host.get(request.instance_id)
        faulty = self._host.faulty(work, "detach_volume", instance)
        disk = find(instance, request.volume_id, request.attachment_id)
        faulty.ready([] if disk is None else detach_errors(instance, disk))
        if disk is not None:
            faulty.step("detach")
            if is_plugged(instance, disk):
                self._ask_guest(instance, disk, request)
            self._unplug(f"{instance.instance_id}/{disk.attachment_id}")
        return pb.DetachVolumeResponse(
            already_gone=disk is None, instance=self._host.get(request.instance_id)
        )

    def extend_volume(self, request: pb.ExtendVolumeRequest, work: Work) -> pb.ExtendVolumeResponse:
        """See Volumes."""
        instance = self._host.get(request.instance_id)
        faulty = self._host.faulty(work, "extend_volume", instance)
        disk = get(instance, request.volume_id, request.attachment_id)
        size_bytes = self.size_of(disk.volume_id)
        blockers = power_blockers(instance, *ATTACHABLE)
        if request.size_bytes < size_bytes:
            blockers.append(refusals.shrink_refused(size_bytes))
        faulty.ready(blockers)
        if request.size_bytes != size_bytes:
            faulty.step("extend")
            self._sizes[disk.volume_id] = request.size_bytes
        return pb.ExtendVolumeResponse(guest_size_bytes=request.size_bytes, instance=instance)

    def swap_volume(self, request: pb.SwapVolumeRequest, work: Work) -> pb.SwapVolumeResponse:
        """See Volumes."""
        instance = self._host.get(request.instance_id)
        faulty = self._host.faulty(work, "swap_volume", instance)
        with self._claims.held(request.new_volume.volume_id):
            swap = plan_swap(request, instance, self._host.instances())
            size_bytes = self.size_of(swap.old.volume_id)
            faulty.ready([] if swap.done else self._swap_blockers(request, instance, swap))
            copied = 0 if swap.done else size_bytes
            if not swap.done:
                self._sizes[swap.new.volume_id] = request.resize_to_bytes or size_bytes
                self._mirror(instance.instance_id, swap.old, swap.new, faulty)
        now = self._host.get(request.instance_id)
        return pb.SwapVolumeResponse(
            disk=get(now, swap.new.volume_id, swap.new.attachment_id),
            size_bytes=self.size_of(swap.new.volume_id),
            copied_bytes=copied,
            instance=now,
        )

    def _swap_blockers(
        self, request: pb.SwapVolumeRequest, instance: Instance, swap: Swap
    ) -> list[ContractError]:
        blockers = [*swap.blockers, *power_blockers(instance, _RUNNING, _PAUSED)]
        blockers += chain_errors(swap, self._chains.of(instance.instance_id, swap.old).names)
        if blockers:
            return blockers
        present = self.size_of(swap.old.volume_id)
        size_bytes, blockers = self._storage.looked_at(
            request.new_volume, field="new_volume", timeout_s=0
        )
        if 0 < size_bytes < max(present, request.resize_to_bytes):
            blockers.append(refusals.volume_too_small(f"the new volume has {size_bytes} bytes"))
        if 0 < request.resize_to_bytes < present:
            blockers.append(refusals.volume_too_small("resize_to_bytes cuts the volume off"))
        return blockers

    def _unplug(self, subject: str) -> None:
        """Takes an attachment ("INSTANCE/ATTACHMENT") away; nothing where it has gone."""
        instance_id, _, attachment_id = subject.partition("/")
        self._chains.forget(instance_id, attachment_id)
        if self._host.find(instance_id) is None:
            return
        with self._host.edit(instance_id) as instance:
            for machine in machines(instance):
                kept = [disk for disk in machine.disks if disk.attachment_id != attachment_id]
                del machine.disks[:]
                machine.disks.extend(kept)

    def size_of(self, volume_id: str) -> int:
        """Bytes of a volume: 1 GiB where nobody said otherwise."""
        return self._sizes.get(volume_id, _GIB)

    def _planned(self, device: BlockDevice, instance: Instance) -> Attaching:
        located = BlockDevice()
        located.CopyFrom(device)
        located.volume.CopyFrom(self._storage.located(device.volume))
        return plan_attachment(located, instance, self._host.instances())

    def _storage_errors(self, volume: VolumeConnection, field: str) -> list[ContractError]:
        size_bytes, errors = self._storage.looked_at(volume, field=field, timeout_s=0)
        if size_bytes:
            self._sizes[volume.volume_id] = size_bytes
        return errors

    def _plug(self, instance_id: str, disk: AttachedDisk) -> None:
        with self._host.edit(instance_id) as instance:
            instance.persistent.disks.append(disk)
            if instance.HasField("effective"):
                instance.effective.disks.append(disk)

    def _ask_guest(
        self, instance: Instance, disk: AttachedDisk, request: pb.DetachVolumeRequest
    ) -> None:
        """A guest that its labels make stubborn keeps the device."""
        answer = instance.labels.get(KEEPS_DEVICES_LABEL)
        timeout_s = seconds(request, "timeout", RELEASE_TIMEOUT_S)
        if answer == "refuse":
            raise refusals.device_release_refused(disk.device_name)
        if answer == "ignore":
            raise refusals.device_not_released(disk.device_name, timeout_s)

    def _mirror(
        self, instance_id: str, old: AttachedDisk, new: AttachedDisk, work: FaultyWork
    ) -> None:
        work.phase("connect", percent=0)
        work.step("connect")
        work.phase("mirror", percent=10)
        work.step("mirror")
        work.checkpoint()
        work.phase("pivot", percent=95)
        work.commit()
        self._chains.forget(instance_id, old.attachment_id)
        with self._replacing(instance_id, old) as found:
            for disk in found:
                disk.CopyFrom(new)

    @contextmanager
    def _replacing(self, instance_id: str, old: AttachedDisk) -> Iterator[list[AttachedDisk]]:
        with self._host.edit(instance_id) as instance:
            disks = [*instance.persistent.disks, *instance.effective.disks]
            yield [disk for disk in disks if disk.attachment_id == old.attachment_id]
