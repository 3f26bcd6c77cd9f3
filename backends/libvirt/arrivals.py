"""What is made here for an instance that arrives, before it does."""

import os
import uuid
from pathlib import Path

from virtrpc.v1 import migration_pb2 as pb
from virtrpc.v1.spec_pb2 import DiskFormat, InstanceSpec

from backends.console_log import ConsoleLog
from backends.images import ImageStore, qemu_img
from backends.libvirt import transfer as transfers
from backends.libvirt.blueprint import disk_path
from backends.libvirt.disks import make_overlay
from backends.libvirt.folders import InstanceFolders
from backends.libvirt.machine_state import arrived_at
from backends.migration import console
from backends.migration.checks import COPY
from backends.migration.state_files import ROLES
from backends.plan import InstancePlan
from backends.plan.disks import PlannedDisk
from backends.specification import SpecImages

_OVERLAY_BYTES = 1 << 30


class Arrivals:
    """Makes folders, empty disks and files."""

    def __init__(self, folders: InstanceFolders, images: ImageStore) -> None:
        self._folders = folders
        self._images = images

    def prepare(self, data: pb.MigrationData, spec: InstanceSpec) -> None:
        """Its folder with what its machine will open; `data` says where that is."""
        copies = data.storage == COPY
        if copies:
            self._folders.remove(data.instance_id)  # what an instance of that id once left
        folder = self._folders.make(data.instance_id)
        plan = {disk.device_name: disk for disk in InstancePlan(data.instance_id, spec).disks}
        images = SpecImages(spec, self._images)
        cold = data.kind == pb.MIGRATION_KIND_COLD
        for disk in data.disks:
            if disk.role in ROLES:
                disk.destination_source = str(arrived_at(folder, disk.role))
            elif disk.device_name in plan and not disk.volume_id:
                path = disk_path(folder, plan[disk.device_name])
                if cold and not _stays(disk, plan[disk.device_name]):
                    continue
                disk.destination_source = str(path)
                if copies and not cold:
                    _make_disk(disk, path, images, whole=transfers.lacks_base(data))
        _add_files(data, folder, images)


def lacks_nothing(data: pb.MigrationData) -> bool:
    """Whether all disks come as they are, whatever they were made from."""
    return not data.source.boot_image_ids and not any(d.base_image_id for d in data.disks)


def _stays(disk: pb.MigrationDisk, planned: PlannedDisk) -> bool:
    """Whether what is on a disk is wanted; a swap disk of another size is made anew."""
    same_size = disk.virtual_size_bytes == planned.size_bytes
    return disk.role == planned.role and (disk.role != "swap" or same_size)


def _make_sparse(path: Path, size_bytes: int) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o600)
    try:
        os.ftruncate(descriptor, size_bytes)
    finally:
        os.close(descriptor)


def _make_disk(disk: pb.MigrationDisk, path: Path, images: SpecImages, *, whole: bool) -> None:
    """An empty disk that is written over: an overlay, where it need not be whole."""
    if disk.format != DiskFormat.DISK_FORMAT_QCOW2:
        _make_sparse(path, disk.virtual_size_bytes)
    elif disk.base_image_id and not whole and images.root is not None:
        make_overlay(path, images.root, size_bytes=disk.virtual_size_bytes)
    else:
        qemu_img.make_output(path)
        qemu_img.run(
            "create", "-q", "-f", "qcow2", "--", str(path), str(disk.virtual_size_bytes),
            max_file_bytes=_OVERLAY_BYTES,
        )  # fmt: skip
        qemu_img.take_output(path)
    path.chmod(0o600)


def _add_files(data: pb.MigrationData, folder: Path, images: SpecImages) -> None:
    """Where the machine finds what it uses beside its disks."""
    log = ConsoleLog.found_in(folder)
    if log is None:
        log_id = data.console_log_id or str(uuid.uuid4())
        log = ConsoleLog.of(folder, log_id=log_id)
        console.expect(log.path, data.console_offset)
        data.console_log_id = log.log_id
    data.files.add(role="console", path=str(log.path))
    data.files.add(role="nvram", path=str(folder / "nvram.fd"))
    for role, image in (("kernel", images.kernel), ("ramdisk", images.ramdisk)):
        if image is not None:
            data.files.add(role=role, path=str(image.path))
