"""Files of a machine that go along beside its disks when it is off, as if they were disks.

Firmware variables lie with the disks; a vTPM's state lies where its hypervisor keeps it,
on this host alone also where the directory of the instances is shared.
"""

from collections.abc import Iterable, Iterator

from virtrpc.v1 import migration_pb2 as pb
from virtrpc.v1.spec_pb2 import DiskFormat

from backends.errors import ContractError, WrongStateError
from backends.migration.checks import COPY, SHARED, Storage

NVRAM, TPM = "nvram", "tpm"
ROLES = (NVRAM, TPM)
_REASONS = {NVRAM: "NVRAM_NOT_MIGRATED", TPM: "VTPM_NOT_MIGRATED"}


def state_file(role: str, size_bytes: int) -> pb.MigrationDisk:
    """A part of a machine's state; its role is also its name."""
    return pb.MigrationDisk(
        device_name=role,
        role=role,
        format=DiskFormat.DISK_FORMAT_RAW,
        virtual_size_bytes=size_bytes,
        allocated_bytes=size_bytes,
    )


def not_migrated(role: str, why: str) -> ContractError:
    """That a part of a machine's state cannot go, or would not."""
    return WrongStateError(why, reason=_REASONS[role], field="data.disks")


def untaken(
    source: pb.MigrationSource, disks: Iterable[pb.MigrationDisk]
) -> Iterator[ContractError]:
    """Parts of a machine's state that a destination was not told of."""
    told = {disk.role for disk in disks}
    for disk in source.disks:
        if disk.role in ROLES and disk.role not in told:
            yield not_migrated(disk.role, f"the destination was not told of {disk.role}")


def way_of(disk: pb.MigrationDisk, own: "Storage.ValueType") -> "Storage.ValueType":
    """How a disk comes to the destination; `own`: the instance's own."""
    if disk.volume_id:
        return SHARED
    return COPY if disk.role == TPM else own
