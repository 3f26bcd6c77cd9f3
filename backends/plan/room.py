"""Memory and disk that an instance takes of its host, and whether there is enough."""

from collections.abc import Sequence
from dataclasses import dataclass

from virtrpc.v1.spec_pb2 import Flavor

from backends.errors import ContractError, NoRoomError
from backends.plan.disks import BYTES_PER_MIB, PlannedDisk
from backends.plan.machine import Machine

# Beside the guest's memory QEMU takes about 100 MiB (measured: 160 to 200 MiB for a
# guest of 72), a stack for each vCPU, and page tables for what the guest touches.
_QEMU_MIB, _VCPU_MIB, _PAGE_TABLE_SHARE = 96, 2, 512
_GRAPHICS_MIB, _TPM_MIB = 24, 8
# Config drive, console log, firmware variables and TPM state together.
_FILES_MIB = 16


@dataclass(frozen=True, kw_only=True)
class Room:
    """What a host has free."""

    memory_mib: int
    disk_bytes: int


def memory_overhead_mib(flavor: Flavor, machine: Machine) -> int:
    """Host memory that an instance takes beyond the guest's own."""
    return (
        _QEMU_MIB
        + _VCPU_MIB * flavor.vcpus
        + -(-flavor.memory_mib // _PAGE_TABLE_SHARE)
        + (_GRAPHICS_MIB if machine.graphics else 0)
        + (_TPM_MIB if machine.tpm else 0)
    )


def disk_overhead_mib() -> int:
    """Disk space that an instance takes beyond its disks."""
    return _FILES_MIB


def memory_errors(needed_mib: int, room: Room) -> list[ContractError]:
    """Where the host's free memory does not suffice."""
    if needed_mib <= room.memory_mib:
        return []
    why = f"the instance takes {needed_mib} MiB of memory, {room.memory_mib} MiB are free"
    return [NoRoomError(why, field="spec.flavor.memory_mib")]


def disk_errors(disks: Sequence[PlannedDisk], room: Room) -> list[ContractError]:
    """The disks that do not fit, each beside those before it that do."""
    errors: list[ContractError] = []
    free_bytes = room.disk_bytes - _FILES_MIB * BYTES_PER_MIB
    for disk in disks:
        if disk.size_bytes > free_bytes:
            why = (
                f"the {disk.role} disk takes {disk.size_bytes // BYTES_PER_MIB} MiB,"
                f" {max(0, free_bytes) // BYTES_PER_MIB} MiB are free"
            )
            errors.append(NoRoomError(why, field=disk.field))
        else:
            free_bytes -= disk.size_bytes
    return errors
