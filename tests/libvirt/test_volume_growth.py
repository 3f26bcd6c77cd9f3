"""Volumes that are grown while no machine has them open."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

from virtrpc.v1.instance_pb2 import AttachedDisk
from virtrpc.v1.spec_pb2 import DISK_FORMAT_QCOW2

from backends.libvirt.volume_growth import grow_file, storage_size

MIB = 1 << 20


def test_an_overlay_of_root_s_is_grown_though_only_root_may_read_what_it_is_based_on(
    short_folder: Callable[[], Path],
) -> None:
    folder = short_folder()
    base, overlay = folder / "base", folder / "overlay"
    base.write_bytes(bytes(MIB))
    base.chmod(0o600)
    backing = ("-b", str(base), "-F", "raw")
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *backing, overlay], check=True)
    disk = AttachedDisk(source=str(overlay), format=DISK_FORMAT_QCOW2)
    grow_file(disk, 4 * MIB)
    assert storage_size(disk) == 4 * MIB
    assert overlay.stat().st_uid == os.geteuid()
    checked = subprocess.run(["qemu-img", "check", "-q", overlay], check=False)
    assert checked.returncode == 0
