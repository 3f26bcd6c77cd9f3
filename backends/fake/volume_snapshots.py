"""Snapshots of volumes on the fake: chains of names, without files."""

import posixpath

from virtrpc.v1 import volume_pb2 as pb
from virtrpc.v1.instance_pb2 import AttachedDisk, Instance
from virtrpc.v1.types_pb2 import PowerState

from backends.contract import VolumeSnapshots
from backends.errors import ContractError
from backends.fake.host import FakeHost
from backends.fake.volume_chains import Chain
from backends.fake.volumes import FakeVolumes
from backends.power_states import power_blockers
from backends.volumes import snapshots
from backends.volumes.attached import get
from backends.volumes.attaching import ATTACHABLE
from backends.work import Undo, Work

_RUNNING, _PAUSED = PowerState.POWER_STATE_RUNNING, PowerState.POWER_STATE_PAUSED


class FakeVolumeSnapshots(VolumeSnapshots):
    """Kept by attachment: they are forgotten with it."""

    def __init__(self, host: FakeHost, volumes: FakeVolumes) -> None:
        self._host = host
        self._volumes = volumes
        self._chains = host.chains
        self.undo = {"drop_snapshot": self._drop}

    def create_volume_snapshot(
        self, request: pb.CreateVolumeSnapshotRequest, work: Work
    ) -> pb.CreateVolumeSnapshotResponse:
        """See VolumeSnapshots."""
        instance = self._host.get(request.instance_id)
        faulty = self._host.faulty(work, "create_volume_snapshot", instance)
        disk = get(instance, request.volume_id, request.attachment_id)
        same = snapshots.existing(request, self._chains.taken(instance.instance_id))
        taken = self._chains.of(instance.instance_id, disk).taken
        newest = taken[-1] if taken else None
        blockers: list[ContractError] = []
        if same is None:
            blockers += snapshots.unsupported(disk)
            blockers += snapshots.parent_errors(request, newest)
            blockers += power_blockers(instance, *ATTACHABLE)
        faulty.ready(blockers)
        if same is None:
            faulty.phase("quiesce", percent=10)
            faulty.phase("snapshot", percent=50)
            subject = f"{instance.instance_id}/{disk.attachment_id}/{request.snapshot_id}"
            faulty.step("snapshot", Undo("drop_snapshot", {"snapshot": subject}))
            same = self._take(request, instance, disk, newest)
        now = self._host.get(request.instance_id)
        return pb.CreateVolumeSnapshotResponse(snapshot=same, disk=get(now, request.volume_id))

    def delete_volume_snapshot(
        self, request: pb.DeleteVolumeSnapshotRequest, work: Work
    ) -> pb.DeleteVolumeSnapshotResponse:
        """See VolumeSnapshots."""
        instance = self._host.get(request.instance_id)
        faulty = self._host.faulty(work, "delete_volume_snapshot", instance)
        disk = get(instance, request.volume_id, request.attachment_id)
        chain = self._chains.of(instance.instance_id, disk)
        merge = snapshots.plan_merge(request, chain.taken, chain.names)
        faulty.ready([] if merge is None else power_blockers(instance, _RUNNING, _PAUSED))
        if merge is not None:
            faulty.phase("merge", percent=10)
            faulty.step("merge")
            faulty.phase("pivot", percent=95)
            faulty.commit()
            left = [name for name in chain.names if name not in merge.merged]
            chain = Chain(left, list(merge.remaining))
            self._chains.keep(instance.instance_id, disk.attachment_id, chain)
            self._activate(instance.instance_id, disk, left[0])
        now = self._host.get(request.instance_id)
        return pb.DeleteVolumeSnapshotResponse(
            already_gone=merge is None,
            disk=get(now, request.volume_id),
            snapshots=chain.taken,
        )

    def _drop(self, subject: str) -> None:
        """Takes back a snapshot ("INSTANCE/ATTACHMENT/SNAPSHOT") that was being taken."""
        instance_id, attachment_id, snapshot_id = subject.split("/")
        instance = self._host.find(instance_id)
        disks = instance.persistent.disks if instance is not None else ()
        for disk in (one for one in disks if one.attachment_id == attachment_id):
            chain = self._chains.of(instance_id, disk)
            if any(snapshot.snapshot_id == snapshot_id for snapshot in chain.taken):
                self._chains.keep(
                    instance_id, attachment_id, Chain(chain.names[1:], chain.taken[:-1])
                )
                self._activate(instance_id, disk, chain.names[1])

    def _take(
        self,
        request: pb.CreateVolumeSnapshotRequest,
        instance: Instance,
        disk: AttachedDisk,
        newest: pb.VolumeSnapshot | None,
    ) -> pb.VolumeSnapshot:
        active = posixpath.basename(disk.source)
        snapshot = pb.VolumeSnapshot(
            snapshot_id=request.snapshot_id,
            volume_id=request.volume_id,
            parent_snapshot_id=newest.snapshot_id if newest is not None else "",
            base_file=active,
            overlay_file=snapshots.overlay_name(request, active),
            size_bytes=self._volumes.size_of(request.volume_id),
            quiesced=request.quiesce,
        )
        snapshot.created_at.GetCurrentTime()
        chain = self._chains.of(instance.instance_id, disk)
        chain = Chain([snapshot.overlay_file, *chain.names], [*chain.taken, snapshot])
        self._chains.keep(instance.instance_id, disk.attachment_id, chain)
        self._activate(instance.instance_id, disk, snapshot.overlay_file)
        return snapshot

    def _activate(self, instance_id: str, disk: AttachedDisk, name: str) -> None:
        source = posixpath.join(posixpath.dirname(disk.source), name)
        with self._host.edit(instance_id) as instance:
            for each in (*instance.persistent.disks, *instance.effective.disks):
                if each.attachment_id == disk.attachment_id:
                    each.source = source
