"""External snapshots of volumes, on libvirt: overlays taken, and merged again by QEMU.

What the service knows of them stands in the domain's metadata; what there really is says
the chain of files.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import libvirt
from virtrpc.v1 import volume_pb2 as pb
from virtrpc.v1.instance_pb2 import AttachedDisk, Instance
from virtrpc.v1.types_pb2 import PowerState

from backends.contract import VolumeSnapshots
from backends.errors import ContractError, HypervisorError
from backends.libvirt.agent import Agent
from backends.libvirt.block_jobs import BlockJob
from backends.libvirt.domains import Domains
from backends.libvirt.guest import LibvirtGuestAgent
from backends.libvirt.overlays import Overlays, begin_merge, overlay_errors
from backends.libvirt.volume_growth import VolumeGrowth, storage_size
from backends.power_states import power_blockers
from backends.volumes import snapshots
from backends.volumes.attached import get, is_plugged
from backends.volumes.attaching import ATTACHABLE
from backends.volumes.snapshots import Merge
from backends.work import Undo, Work

_RUNNING, _PAUSED = PowerState.POWER_STATE_RUNNING, PowerState.POWER_STATE_PAUSED


class LibvirtVolumeSnapshots(VolumeSnapshots):
    """Snapshots of all volumes."""

    def __init__(self, domains: Domains, guest: LibvirtGuestAgent) -> None:
        self._domains = domains
        self._guest = guest
        self._growth = VolumeGrowth(domains)
        self._overlays = Overlays(domains)
        self.undo = {"drop_snapshot": self._drop}

    def create_volume_snapshot(
        self, request: pb.CreateVolumeSnapshotRequest, work: Work
    ) -> pb.CreateVolumeSnapshotResponse:
        """See VolumeSnapshots."""
        domain, instance = self._domains.managed(request.instance_id)
        disk = get(instance, request.volume_id, request.attachment_id)
        known = self._domains.own(domain).snapshots
        same = snapshots.existing(request, known)
        if same is not None:
            work.ready()
        elif self._was_cut(domain, request, disk, known):
            work.ready()
            same = self._record(domain, request, instance, disk)
        else:
            work.ready(self._blockers(domain, request, instance, disk, known))
            same = self._take(domain, request, instance, disk, work)
        now = self._domains.tell(domain)
        return pb.CreateVolumeSnapshotResponse(snapshot=same, disk=get(now, request.volume_id))

    def delete_volume_snapshot(
        self, request: pb.DeleteVolumeSnapshotRequest, work: Work
    ) -> pb.DeleteVolumeSnapshotResponse:
        """See VolumeSnapshots."""
        domain, instance = self._domains.managed(request.instance_id)
        disk = get(instance, request.volume_id, request.attachment_id)
        taken = self._taken(domain, disk)
        merge = self._planned(domain, request, disk, taken)
        work.ready([] if merge is None else power_blockers(instance, _RUNNING, _PAUSED))
        released: Sequence[str] = ()
        if merge is not None:
            self._merge(domain, disk, merge, request.bandwidth_bytes_per_s, work)
            work.step("files")
            self._overlays.configure(domain, disk.device_name)
            released = self._put_away(domain, disk, merge)
        now = self._domains.tell(domain)
        return pb.DeleteVolumeSnapshotResponse(
            already_gone=merge is None,
            disk=get(now, request.volume_id),
            snapshots=self._taken(domain, disk),
            released_files=released,
        )

    def _drop(self, subject: str) -> None:
        """Takes back a snapshot ("INSTANCE/DEVICE/OVERLAY") that was being taken."""
        instance_id, device_name, name = subject.split("/", 2)
        domain = self._domains.find(instance_id)
        if domain is not None:
            self._overlays.drop(domain, device_name, name)
            self._domains.tell(domain)

    def _was_cut(
        self,
        domain: libvirt.virDomain,
        request: pb.CreateVolumeSnapshotRequest,
        disk: AttachedDisk,
        known: Sequence[pb.VolumeSnapshot],
    ) -> bool:
        """Whether a call that died left the overlay active, and nothing noted."""
        name = Path(disk.source).name
        return (
            name == snapshots.overlay_name(request, name)
            and all(snapshot.overlay_file != name for snapshot in known)
            and len(self._overlays.chain(domain, disk)) > 1
        )

    def _blockers(
        self,
        domain: libvirt.virDomain,
        request: pb.CreateVolumeSnapshotRequest,
        instance: Instance,
        disk: AttachedDisk,
        known: Sequence[pb.VolumeSnapshot],
    ) -> list[ContractError]:
        taken = [s for s in known if s.volume_id == disk.volume_id]
        blockers = [
            *snapshots.unsupported(disk),
            *snapshots.parent_errors(request, taken[-1] if taken else None),
            *power_blockers(instance, *ATTACHABLE),
        ]
        if not blockers:
            blockers += overlay_errors(request, Path(disk.source))
        if request.quiesce and instance.power_state in (_RUNNING, _PAUSED) and not blockers:
            blockers += (
                power_blockers(instance, _RUNNING) or Agent(self._domains, domain).blockers()
            )
        return blockers

    def _take(
        self,
        domain: libvirt.virDomain,
        request: pb.CreateVolumeSnapshotRequest,
        instance: Instance,
        disk: AttachedDisk,
        work: Work,
    ) -> pb.VolumeSnapshot:
        running = is_plugged(instance, disk)
        name = snapshots.overlay_name(request, Path(disk.source).name)
        subject = f"{instance.instance_id}/{disk.device_name}/{name}"
        undo = None if request.reuse_file else Undo("drop_snapshot", {"snapshot": subject})
        work.phase("quiesce", percent=5)
        quiesce = request.quiesce and running
        with self._guest.frozen(domain, work) if quiesce else nullcontext():
            work.phase("snapshot", percent=30, message=name)
            work.step("snapshot", undo)
            self._overlays.cut(domain, instance, disk, name, reuse=request.reuse_file)
        work.commit()
        return self._record(domain, request, instance, disk)

    def _record(
        self,
        domain: libvirt.virDomain,
        request: pb.CreateVolumeSnapshotRequest,
        instance: Instance,
        disk: AttachedDisk,
    ) -> pb.VolumeSnapshot:
        """Notes a snapshot that was taken."""
        chain = self._overlays.chain(domain, disk)
        taken = self._taken(domain, disk)
        size_bytes = storage_size(disk)
        if is_plugged(instance, disk):
            size_bytes = self._growth.guest_size(domain, disk.device_name)
        snapshot = pb.VolumeSnapshot(
            snapshot_id=request.snapshot_id,
            volume_id=disk.volume_id,
            parent_snapshot_id=taken[-1].snapshot_id if taken else "",
            base_file=chain[1],
            overlay_file=chain[0],
            size_bytes=size_bytes,
            quiesced=request.quiesce,
        )
        snapshot.created_at.GetCurrentTime()
        own = self._domains.own(domain)
        own.snapshots.append(snapshot)
        if not request.reuse_file:
            own.overlays.append(str(Path(disk.source).parent / chain[0]))
        self._domains.save_own(domain, own)
        return snapshot

    def _planned(
        self,
        domain: libvirt.virDomain,
        request: pb.DeleteVolumeSnapshotRequest,
        disk: AttachedDisk,
        taken: Sequence[pb.VolumeSnapshot],
    ) -> Merge | None:
        chain = self._overlays.chain(domain, disk)
        merged = snapshots.merged_already(request, taken, chain)
        return merged or snapshots.plan_merge(request, taken, chain)

    def _merge(
        self,
        domain: libvirt.virDomain,
        disk: AttachedDisk,
        merge: Merge,
        bandwidth: int,
        work: Work,
    ) -> None:
        chain = self._overlays.chain(domain, disk)
        if not any(name in chain for name in merge.merged):
            return
        job = BlockJob(self._domains, domain, disk.device_name)
        active = merge.top == chain[0] and not merge.pull
        work.phase("merge", percent=2)
        subject = f"{domain.UUIDString()}/{disk.device_name}"
        work.step("merge", Undo("end_block_job", {"disk": subject}))
        pulls = self._domains.pulls
        with pulls.under_way(domain.UUIDString()) if merge.pull else nullcontext():
            if not job.is_there():
                job.begin(lambda: begin_merge(domain, disk, merge, bandwidth, active=active))
            is_mirror = job.until_ready(work, "merge")
        work.commit()
        if is_mirror:
            work.phase("pivot", percent=95)
            job.pivot()
        left = set(merge.merged) & set(self._overlays.chain(domain, disk))
        if left:
            raise HypervisorError(f"the merge ended before {', '.join(sorted(left))} was merged")

    def _put_away(
        self, domain: libvirt.virDomain, disk: AttachedDisk, merge: Merge
    ) -> Sequence[str]:
        """Forgets what was merged, and deletes the files that are the service's own."""
        own, folder = self._domains.own(domain), Path(disk.source).parent
        ours = {str(folder / name) for name in merge.merged} & set(own.overlays)
        for path in sorted(ours):
            Path(path).unlink(missing_ok=True)
        others = [s for s in own.snapshots if s.volume_id != disk.volume_id]
        own.snapshots = [*others, *merge.remaining]
        own.overlays = [path for path in own.overlays if path not in ours]
        self._domains.save_own(domain, own)
        return [name for name in merge.merged if str(folder / name) not in ours]

    def _taken(self, domain: libvirt.virDomain, disk: AttachedDisk) -> list[pb.VolumeSnapshot]:
        return [s for s in self._domains.own(domain).snapshots if s.volume_id == disk.volume_id]
