"""Disks of an instance that begin empty, or with an empty filesystem: sparse raw files.

Their format is said to QEMU, never guessed, so a header that the guest writes on
one means nothing.
"""

import os
import subprocess
from pathlib import Path

from backends.errors import HypervisorError, NoRoomError
from backends.plan.disks import PlannedDisk

_TIMEOUT_S = 300
_NO_SPACE = b"No space left on device"
# The label by which guests know an ephemeral disk; FAT allows no more than 11 characters.
_LABEL = "ephemeral0"
_PROGRAMS = {
    "ext2": ("mkfs.ext2", "-q", "-F", "-L", _LABEL),
    "ext3": ("mkfs.ext3", "-q", "-F", "-L", _LABEL),
    "ext4": ("mkfs.ext4", "-q", "-F", "-L", _LABEL),
    "vfat": ("mkfs.vfat", "-I", "-n", _LABEL),
    "xfs": ("mkfs.xfs", "-q", "-f", "-L", _LABEL),
    "swap": ("mkswap",),
}


def make_blank_disk(path: Path, disk: PlannedDisk) -> None:
    """Makes a disk as a new file; raises NoRoomError or HypervisorError."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    descriptor = os.open(path, flags, mode=0o600)
    try:
        os.ftruncate(descriptor, disk.size_bytes)
    finally:
        os.close(descriptor)
    if disk.filesystem:
        _make_filesystem(path, disk)


def _make_filesystem(path: Path, disk: PlannedDisk) -> None:
    program, *options = _PROGRAMS[disk.filesystem]
    try:
        done = subprocess.run(
            [program, *options, str(path)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise HypervisorError(f"{program} took longer than {_TIMEOUT_S} s") from error
    if done.returncode:
        _raise_failure(program, disk, done.stderr)


def _raise_failure(program: str, disk: PlannedDisk, stderr: bytes) -> None:
    # The program says it in no other way than by the C library's message.
    if _NO_SPACE in stderr:
        raise NoRoomError("the filesystem of the instances is full", field=disk.field)
    lines = stderr.decode("utf-8", "replace").strip().splitlines()
    raise HypervisorError(f"{program} failed: {lines[-1] if lines else 'no message'}")
