"""Snapshots of volumes on the fake: chains of names, without files."""

import posixpath
import threading

from virtrpc.v1 import volume_pb2 as pb
from virtrpc.v1.instance_pb2 import AttachedDisk, Instance
from virtrpc.v1.types_pb2 import PowerState

from backends.contract import VolumeSnapshots
from backends.errors import ContractError
from backends.fake.host import FakeHost
from backends.fake.volumes import FakeVolumes
from backends.power_states import power_blockers
from backends.volumes import snapshots
from backends.volumes.attached import get
from backends.volumes.attaching import ATTACHABLE
from backends.work import Undo, Work

_RUNNING, _PAUSED = PowerState.POWER_STATE_RUNNING, PowerState.POWER_STATE_PAUSED
_Key = tuple[str, str]


class FakeVolumeSnapshots(VolumeSnapshots):
    """Kept by attachment: they are forgotten with it."""

    def __init__(self, host: FakeHost, volumes: FakeVolumes) -> None:
        self._host = host
        self._volumes = volumes
        self._lock = threading.Lock()
        self._taken: dict[_Key, list[pb.VolumeSnapshot]] = {}
        self._chains: dict[_Key, list[str]] = {}
        self.undo = {"drop_snapshot": self._drop}

    def create_volume_snapshot(
        self, request: pb.CreateVolumeSnapshotRequest, work: Work
    ) -> pb.CreateVolumeSnapshotResponse:
        """See VolumeSnapshots."""
        instance = self._host.get(request.instance_id)
        faulty = self._host.faulty(work, "create_volume_snapshot", instance)
        disk = get(instance, request.volume_id, request.attachment_id)
        key, of_instance = self._of(instance, disk)
        same = snapshots.existing(request, of_instance)
        taken = self._taken.get(key, [])
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
        key, _ = self._of(instance, disk)
        chain = self._chains.get(key, [posixpath.basename(disk.source)])
        merge = snapshots.plan_merge(request, self._taken.get(key, []), chain)
        faulty.ready([] if merge is None else power_blockers(instance, _RUNNING, _PAUSED))
        if merge is not None:
            faulty.phase("merge", percent=10)
            faulty.step("merge")
            faulty.phase("pivot", percent=95)
            faulty.commit()
            self._taken[key] = list(merge.remaining)
            self._chains[key] = [name for name in chain if name not in merge.merged]
            self._activate(instance.instance_id, disk, self._chains[key][0])
        now = self._host.get(request.instance_id)
        return pb.DeleteVolumeSnapshotResponse(
            already_gone=merge is None,
            disk=get(now, request.volume_id),
            snapshots=self._taken.get(key, []),
        )

    def _drop(self, subject: str) -> None:
        """Forgets a snapshot ("INSTANCE/ATTACHMENT/SNAPSHOT") that was being taken."""
        instance_id, attachment_id, snapshot_id = subject.split("/")
        taken = self._taken.get((instance_id, attachment_id), [])
        self._taken[instance_id, attachment_id] = [
            snapshot for snapshot in taken if snapshot.snapshot_id != snapshot_id
        ]

    def _of(self, instance: Instance, disk: AttachedDisk) -> tuple[_Key, list[pb.VolumeSnapshot]]:
        """Where those of a disk are kept, and all of the instance."""
        with self._lock:
            every = [s for (i, _), taken in self._taken.items() for s in taken
                     if i == instance.instance_id]  # fmt: skip
        return (instance.instance_id, disk.attachment_id), every

    def _take(
        self,
        request: pb.CreateVolumeSnapshotRequest,
        instance: Instance,
        disk: AttachedDisk,
        newest: pb.VolumeSnapshot | None,
    ) -> pb.VolumeSnapshot:
        key = (instance.instance_id, disk.attachment_id)
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
        with self._lock:
            self._taken.setdefault(key, []).append(snapshot)
            self._chains.setdefault(key, [active]).insert(0, snapshot.overlay_file)
        self._activate(instance.instance_id, disk, snapshot.overlay_file)
        return snapshot

    def _activate(self, instance_id: str, disk: AttachedDisk, name: str) -> None:
        source = posixpath.join(posixpath.dirname(disk.source), name)
        with self._host.edit(instance_id) as instance:
            for each in (*instance.persistent.disks, *instance.effective.disks):
                if each.attachment_id == disk.attachment_id:
                    each.source = source
