"""Snapshots on libvirt: of a machine that runs by QEMU itself, of one that is off by qemu-img."""

from contextlib import nullcontext
from functools import partial
from pathlib import Path

import libvirt
from virtrpc.v1 import instance_pb2 as pb
from virtrpc.v1.diagnostics_pb2 import DiskInfo
from virtrpc.v1.instance_pb2 import AttachedDisk, Instance

from backends.contract import Snapshots
from backends.disk_files import disk_info
from backends.errors import ContractError, HypervisorError
from backends.images import ImageStore, StoredImage
from backends.libvirt.backup import Backups
from backends.libvirt.disks import copy_disk, take_back
from backends.libvirt.domains import Domains, is_active
from backends.libvirt.guest import LibvirtGuestAgent
from backends.snapshots import SnapshotImages, is_raw, root_disk, state_blockers, tell_copied
from backends.work import Undo, Work


class LibvirtSnapshots(Snapshots):
    """Images made from the root disks of instances."""

    def __init__(self, domains: Domains, images: ImageStore, guest: LibvirtGuestAgent) -> None:
        self._domains = domains
        self._store = images
        self._images = SnapshotImages(images)
        self._guest = guest
        self._backups = Backups(domains)
        self.undo = {
            "abort_copy": lambda instance_id: self._backups.abort(
                instance_id, images.incoming_folder
            ),
            "take_back_disk": self._take_back,
        }
        """Undo actions, which take an instance's id."""

    def snapshot_instance(
        self, request: pb.SnapshotInstanceRequest, work: Work
    ) -> pb.SnapshotInstanceResponse:
        """See Snapshots."""
        finished = self._images.finished(request, work)
        if finished is not None:
            return finished
        domain, instance = self._domains.managed(request.instance_id)
        live, disk = is_active(domain), root_disk(instance)
        base, blockers = self._checked(request, domain, instance)
        work.ready(blockers)
        assert disk is not None, "or there is a blocker"  # noqa: S101
        if live:
            copy = partial(self._copy_live, request, domain, disk, work)
        else:
            copy = partial(self._copy_off, request, disk, base, work)
        return self._images.take(request, instance, copy, work, live=live)

    def _checked(
        self, request: pb.SnapshotInstanceRequest, domain: libvirt.virDomain, instance: Instance
    ) -> tuple[StoredImage | None, list[ContractError]]:
        """The image that the disk is based on, and what stands in the way."""
        blockers = state_blockers(request, instance)
        disk = root_disk(instance)
        if disk is None:
            return None, blockers
        info = disk_info(disk)
        base = self._base(info)
        blockers += self._images.blockers(
            request,
            virtual_size_bytes=info.virtual_size_bytes,
            least_bytes=_least_bytes(info, base),
        )
        if request.quiesce and not blockers and is_active(domain):
            blockers += self._guest.agent_blockers(domain)
        return base, blockers

    def _base(self, info: DiskInfo) -> StoredImage | None:
        """Raises HypervisorError where a disk says that it is based on anything but an image."""
        if not info.backing_path:
            return None
        image_id = self._store.paths().get(Path(info.backing_path))
        if image_id is None:
            raise HypervisorError("the root disk is based on a file that is no image of the store")
        return self._store.find_disk(image_id, field="")

    def _copy_live(
        self,
        request: pb.SnapshotInstanceRequest,
        domain: libvirt.virDomain,
        disk: AttachedDisk,
        work: Work,
        target: Path,
    ) -> None:
        work.step("copy", Undo("abort_copy", {"instance_id": request.instance_id}))
        work.phase("quiesce" if request.quiesce else "copy", percent=2)
        with self._guest.frozen(domain, work) if request.quiesce else nullcontext():
            self._backups.begin(domain, disk.device_name, target, to=_format(request))
        self._backups.wait(domain, work, partial(tell_copied, work))

    def _copy_off(
        self,
        request: pb.SnapshotInstanceRequest,
        disk: AttachedDisk,
        base: StoredImage | None,
        work: Work,
        target: Path,
    ) -> None:
        work.step("copy", Undo("take_back_disk", {"instance_id": request.instance_id}))
        of_bytes = _least_bytes(disk_info(disk), base)

        def tick() -> None:
            tell_copied(work, target.stat().st_blocks * 512, of_bytes)

        copy_disk(Path(disk.source), base, target, to=_format(request), tick=tick)

    def _take_back(self, instance_id: str) -> None:
        domain = self._domains.find(instance_id)
        if domain is None or is_active(domain):
            return
        disk = root_disk(self._domains.read(domain))
        if disk is not None:
            take_back(Path(disk.source))


def _least_bytes(info: DiskInfo, base: StoredImage | None) -> int:
    """Bytes that a copy has at least: those of the disk, or of what it is based on."""
    if base is None:
        return info.allocated_bytes
    return max(info.allocated_bytes, base.path.stat().st_blocks * 512)


def _format(request: pb.SnapshotInstanceRequest) -> str:
    return "raw" if is_raw(request) else "qcow2"
