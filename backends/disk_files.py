"""Sizes of disks that are files of this host, by their declared format."""

from pathlib import Path

from virtrpc.v1.diagnostics_pb2 import DiskInfo
from virtrpc.v1.instance_pb2 import AttachedDisk
from virtrpc.v1.spec_pb2 import DiskFormat

from backends.qcow2 import read_header


def disk_info(disk: AttachedDisk) -> DiskInfo:
    """What a disk takes; sizes are 0 where its bytes are not in a file of this host."""
    info = DiskInfo(
        device_name=disk.device_name,
        role=disk.role,
        path=disk.source,
        format=disk.format,
        volume_id=disk.volume_id,
    )
    path = Path(disk.source)
    if not disk.source.startswith("/") or not path.is_file():
        return info
    status = path.stat()
    info.allocated_bytes = status.st_blocks * 512
    info.virtual_size_bytes = status.st_size
    if disk.format == DiskFormat.DISK_FORMAT_QCOW2:
        with path.open("rb") as file:
            header = read_header(file)
        if header is not None:
            info.virtual_size_bytes = header.virtual_size_bytes
            info.backing_path = header.backing_file
    info.over_committed_bytes = max(info.virtual_size_bytes - info.allocated_bytes, 0)
    return info
