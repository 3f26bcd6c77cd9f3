"""A volume replaced by another while the guest runs, by QEMU's mirror.

    connect ──▶ mirror ──▶ pivot (point of no return) ──▶ configuration ──▶ resize

A daemon that died after the point of no return looks at where the disk's bytes are now.
"""

import os
from pathlib import Path

import libvirt
from virtrpc.v1 import volume_pb2 as pb
from virtrpc.v1.instance_pb2 import AttachedDisk, Instance
from virtrpc.v1.spec_pb2 import DiskFormat, VolumeConnection
from virtrpc.v1.types_pb2 import PowerState

from backends.errors import ContractError, HypervisorError, InvalidArgumentError, UnsupportedError
from backends.libvirt.attached_disks import read_disk
from backends.libvirt.block_jobs import MIRROR, BlockJob
from backends.libvirt.blueprint.volumes import mirror_target, volume_disk
from backends.libvirt.domains import Domains
from backends.libvirt.overlays import Overlays
from backends.libvirt.plugging import CONFIG, LIVE, Plugging
from backends.libvirt.volume_growth import VolumeGrowth, storage_size
from backends.libvirt.volume_places import VolumePlaces, volume_texts
from backends.libvirt.volume_secrets import VolumeSecrets
from backends.libvirt.xml.disk import Disk
from backends.libvirt.xml.element import to_text
from backends.power_states import power_blockers
from backends.volumes import refusals
from backends.volumes.attached import format_of, get
from backends.volumes.luks import header_bytes
from backends.volumes.swapping import FIELD, Swap, chain_errors, plan_swap
from backends.work import Undo, Work

_TIMEOUT_S = 60.0
_RUNNING, _PAUSED = PowerState.POWER_STATE_RUNNING, PowerState.POWER_STATE_PAUSED


class VolumeSwap:
    """Swaps of all instances."""

    def __init__(
        self, domains: Domains, places: VolumePlaces, plugging: Plugging, secrets: VolumeSecrets
    ) -> None:
        self._domains = domains
        self._places = places
        self._plugging = plugging
        self._secrets = secrets
        self._growth = VolumeGrowth(domains)
        self._overlays = Overlays(domains)
        self.undo = {
            "forget_new_volume": self._forget_new,
            "restore_volume_size": self._restore_size,
            "end_block_job": self._end_job,
        }

    def swap(
        self, request: pb.SwapVolumeRequest, lacking: list[ContractError], work: Work
    ) -> pb.SwapVolumeResponse:
        """See Volumes.swap_volume; `lacking` is what the host cannot do of it."""
        domain, instance = self._domains.managed(request.instance_id)
        located = pb.SwapVolumeRequest()
        located.CopyFrom(request)
        located.new_volume.CopyFrom(self._places.storage.located(request.new_volume))
        swap = plan_swap(located, instance, self._domains.read_all())
        job = BlockJob(self._domains, domain, swap.old.device_name)
        if swap.done:
            work.ready()
        elif self._is_past_return(domain, swap, job):
            self._finish(domain, request, swap, job, work)
        else:
            work.ready(lacking or self._blockers(domain, instance, located, swap))
            whole = storage_size(swap.new) if _can_be_cut(located.new_volume) else 0
            self._mirror(domain, request, swap, job, work)
            self._finish(domain, request, swap, job, work)
            self._restore_size(f"{whole}/{swap.new.source}")
        return self._response(domain, swap, job)

    def _end_job(self, subject: str) -> None:
        """Ends the mirror on a disk ("INSTANCE/DEVICE"); nothing where there is none."""
        instance_id, _, device_name = subject.partition("/")
        domain = self._domains.find(instance_id)
        if domain is not None:
            BlockJob(self._domains, domain, device_name).abort()

    def _forget_new(self, subject: str) -> None:
        """Removes the secrets of an attachment ("INSTANCE/ATTACHMENT") that did not come."""
        instance_id, _, attachment_id = subject.partition("/")
        self._secrets.forget(instance_id, attachment_id)

    def _blockers(
        self,
        domain: libvirt.virDomain,
        instance: Instance,
        request: pb.SwapVolumeRequest,
        swap: Swap,
    ) -> list[ContractError]:
        blockers = [*swap.blockers, *volume_texts(request.new_volume, FIELD)]
        blockers += power_blockers(instance, _RUNNING, _PAUSED)
        blockers += chain_errors(swap, self._overlays.chain(domain, swap.old))
        same = swap.old.attachment_id == swap.new.attachment_id
        if same and self._secrets.are_kept(instance.instance_id, swap.old.attachment_id):
            why = "keys and passwords are kept by attachment: another one is needed"
            blockers.append(InvalidArgumentError(why, field="new_attachment_id"))
        if blockers:
            return blockers
        present = self._growth.guest_size(domain, swap.old.device_name)
        size_bytes, errors = self._places.storage.looked_at(
            request.new_volume, field=FIELD, timeout_s=_TIMEOUT_S
        )
        if size_bytes and swap.new.encrypted:
            # How much of a server's volume is header QEMU alone finds out.
            local = swap.new.source.startswith("/")
            size_bytes = size_bytes - header_bytes(Path(swap.new.source)) if local else 0
        if not errors and 0 < size_bytes < max(present, request.resize_to_bytes):
            errors.append(refusals.volume_too_small(f"the new volume has {size_bytes} bytes"))
        elif not errors and size_bytes > present and not _can_be_cut(request.new_volume):
            why = "QEMU mirrors between volumes of one size, or to a raw file"
            errors.append(UnsupportedError("swap_volume_larger", why=why, field=FIELD))
        if 0 < request.resize_to_bytes < present:
            errors.append(refusals.volume_too_small(f"the old volume has {present} bytes"))
        return errors

    def _is_past_return(self, domain: libvirt.virDomain, swap: Swap, job: BlockJob) -> bool:
        """A call that died left the disk at the new volume, or about to turn to it.

        Before the point of no return the job was undone: a job that is there is past it.
        """
        live = self._plugging.disk(domain, LIVE, swap.old.device_name)
        if not domain.isActive() or live is None:
            return False
        return read_disk(live).source == swap.new.source or job.is_there()

    def _mirror(
        self,
        domain: libvirt.virDomain,
        request: pb.SwapVolumeRequest,
        swap: Swap,
        job: BlockJob,
        work: Work,
    ) -> None:
        instance_id, device_name = domain.UUIDString(), swap.old.device_name
        work.phase("connect", percent=1)
        if swap.new.attachment_id != swap.old.attachment_id:
            subject = f"{instance_id}/{swap.new.attachment_id}"
            work.step("secrets", Undo("forget_new_volume", {"attachment": subject}))
        self._secrets.keep(instance_id, swap.new.attachment_id, request.new_volume)
        self._cut(swap, self._growth.guest_size(domain, swap.old.device_name), work)
        work.step("mirror", Undo("end_block_job", {"disk": f"{instance_id}/{device_name}"}))
        disk = to_text(mirror_target(self._disk(instance_id, request, swap)).to_xml())
        job.begin(lambda: domain.blockCopy(device_name, disk, None, MIRROR))
        if not job.until_ready(work, "mirror"):
            raise HypervisorError("the mirror ended before all was copied")
        work.phase("pivot", percent=92)
        work.commit()

    def _cut(self, swap: Swap, size_bytes: int, work: Work) -> None:
        """QEMU (5.1 and later) only mirrors between equal sizes: a file gets its own back after."""
        path = Path(swap.new.source)
        if not path.is_file() or swap.new.format != DiskFormat.DISK_FORMAT_RAW:
            return
        whole = path.stat().st_size
        if whole > size_bytes and not swap.new.encrypted:
            work.step("cut", Undo("restore_volume_size", {"file": f"{whole}/{path}"}))
            os.truncate(path, size_bytes)

    def _restore_size(self, subject: str) -> None:
        """Gives a file ("BYTES/PATH") the size back that it had; nothing where it has more."""
        whole, _, path = subject.partition("/")
        if Path(path).is_file() and Path(path).stat().st_size < int(whole):
            os.truncate(path, int(whole))

    def _finish(
        self,
        domain: libvirt.virDomain,
        request: pb.SwapVolumeRequest,
        swap: Swap,
        job: BlockJob,
        work: Work,
    ) -> None:
        """Past the point of no return: all of it may be done again."""
        if job.is_there():
            job.pivot()
        live = self._plugging.disk(domain, LIVE, swap.old.device_name)
        if live is None or read_disk(live).source != swap.new.source:
            raise HypervisorError("the disk did not turn to the new volume")
        instance_id = domain.UUIDString()
        self._configure(domain, self._disk(instance_id, request, swap))
        work.phase("resize", percent=97)
        if request.resize_to_bytes:
            self._growth.resize(domain, swap.old.device_name, request.resize_to_bytes)
        if swap.new.attachment_id != swap.old.attachment_id:
            self._secrets.forget(instance_id, swap.old.attachment_id)
        self._places.forget_snapshots(domain, swap.old.volume_id)

    def _configure(self, domain: libvirt.virDomain, disk: Disk) -> None:
        try:
            domain.updateDeviceFlags(to_text(disk.to_xml()), CONFIG)
        except libvirt.libvirtError as error:
            raise self._domains.failed(error, domain.UUIDString()) from error

    def _disk(self, instance_id: str, request: pb.SwapVolumeRequest, swap: Swap) -> Disk:
        """The new volume's disk."""
        return volume_disk(
            swap.disk,
            self._places.of(request.new_volume),
            instance_id=instance_id,
            initiator=self._places.initiator,
        )

    def _response(
        self, domain: libvirt.virDomain, swap: Swap, job: BlockJob
    ) -> pb.SwapVolumeResponse:
        instance = self._domains.tell(domain)
        disk: AttachedDisk = get(instance, swap.new.volume_id, swap.new.attachment_id)
        return pb.SwapVolumeResponse(
            disk=disk,
            size_bytes=self._growth.guest_size(domain, disk.device_name),
            copied_bytes=job.copied_bytes,
            instance=instance,
        )


def _can_be_cut(volume: VolumeConnection) -> bool:
    """A plain file whose content is to be replaced may be shorter for a while."""
    plain = format_of(volume) == DiskFormat.DISK_FORMAT_RAW and not volume.HasField("encryption")
    return plain and volume.HasField("local_file")
