"""Files of a machine that go along beside its disks when it is off, as if they were disks.

Firmware variables lie with the disks; a vTPM's state lies where its hypervisor keeps it,
on this host alone also where the directory of the instances is shared.
"""

from virtrpc.v1 import migration_pb2 as pb
from virtrpc.v1.spec_pb2 import DiskFormat

from backends.migration.checks import COPY, SHARED, Storage

NVRAM, TPM = "nvram", "tpm"
ROLES = (NVRAM, TPM)


def state_file(role: str, size_bytes: int) -> pb.MigrationDisk:
    """A part of a machine's state; its role is also its name."""
    return pb.MigrationDisk(
        device_name=role,
        role=role,
        format=DiskFormat.DISK_FORMAT_RAW,
        virtual_size_bytes=size_bytes,
        allocated_bytes=size_bytes,
    )


def way_of(disk: pb.MigrationDisk, own: "Storage.ValueType") -> "Storage.ValueType":
    """How a disk comes to the destination; `own`: the instance's own."""
    if disk.volume_id:
        return SHARED
    return COPY if disk.role == TPM else own
