"""Disks on SATA and USB, which the test guest's usual kernel does not know: the ordinary one does.

One guest with that kernel: a SATA disk comes while it is off, USB disks come and go while it runs.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from virtrpc.v1 import spec_pb2, volume_pb2
from virtrpc.v1.spec_pb2 import BlockDevice, VolumeConnection

from tests.conformance.volume.conftest import MIB, TIMEOUT_S, VolumeGuest, file_volume
from tests.conformance.volume.test_guest_data import (
    appears,
    checksum_in_guest,
    checksum_of,
    disappears,
    ended_well,
    extended,
    numbers_in,
    writing,
)
from tests.daemon import DaemonProcess
from tests.images import place_generic_kernel
from tests.instances import console_until, small_spec, spawned
from tests.refusals import refused

pytestmark = pytest.mark.parametrize("backend", ["libvirt"], indirect=True)
MakeFile = Callable[..., Path]
_MEMORY_MIB = 128
_SATA = "sda"


@pytest.fixture(scope="module")
def sata_disk(daemon: DaemonProcess) -> Iterator[BlockDevice]:
    """A volume for the SATA bus."""
    path = daemon.volume_dir / "sata.raw"
    path.write_bytes(bytes(8 * MIB))
    device = file_volume(path)
    device.bus = spec_pb2.DISK_BUS_SATA
    yield device
    path.unlink()


@pytest.fixture(scope="module")
def guest(daemon: DaemonProcess, backend: str, sata_disk: BlockDevice) -> Iterator[VolumeGuest]:
    """A guest that has found the SATA disk at its start."""
    place_generic_kernel(daemon.image_dir)
    spec = small_spec(backend=backend, name="buses")
    spec.flavor.memory_mib = _MEMORY_MIB
    spec.image.kernel_image_id, spec.image.ramdisk_image_id = "kernel-generic", "ramdisk-generic"
    with daemon.connect() as connection, spawned(connection, spec) as instance_id:
        made = VolumeGuest(connection, instance_id, backend)
        made.power_off()
        assert made.attach(sata_disk).disk.device_name == _SATA
        made.power_on()
        console_until(connection, instance_id, b"virtrpc guest ready")
        yield made
        made.leave_shell()
    for name in ("kernel-generic", "ramdisk-generic"):
        (daemon.image_dir / name).unlink()


def usb_disk(path: Path) -> BlockDevice:
    device = file_volume(path)
    device.bus = spec_pb2.DISK_BUS_USB
    return device


def rescanned(guest: VolumeGuest, name: str) -> int:
    """The size that the guest sees when it has asked the disk anew."""
    guest.shell.run(f"echo 1 >/sys/block/{name}/device/rescan")
    return int(guest.shell.run(f"blockdev --getsize64 /dev/{name}"))


def found_anew(guest: VolumeGuest, name: str) -> None:
    """Has the guest let go of a disk and look what there is."""
    guest.shell.run(f"echo 1 >/sys/block/{name}/device/delete")
    guest.shell.run("for host in /sys/class/scsi_host/*/scan; do echo '- - -' >$host; done")
    appears(guest, name)


def test_a_sata_disk_is_used_from_the_start_on(guest: VolumeGuest, sata_disk: BlockDevice) -> None:
    path = Path(sata_disk.volume.local_file.path)
    assert "ata" in guest.shell.run(f"readlink -f /sys/block/{_SATA}")
    guest.shell.run(f"seq 1 5000 | dd of=/dev/{_SATA} bs=64k conv=fsync 2>/dev/null")
    assert path.read_bytes().startswith(b"1\n2\n3\n")
    assert extended(guest, sata_disk).guest_size_bytes == 16 * MIB
    assert rescanned(guest, _SATA) == 8 * MIB, "libata has noted the size"
    found_anew(guest, _SATA)
    assert int(guest.shell.run(f"blockdev --getsize64 /dev/{_SATA}")) == 16 * MIB
    assert checksum_in_guest(guest, _SATA) == checksum_of(path)
    with refused(grpc.StatusCode.FAILED_PRECONDITION, "NOT_HOT_PLUGGABLE"):
        guest.detach(sata_disk.volume.volume_id)
    assert guest.shell.run(f"[ -b /dev/{_SATA} ] && echo there") == "there"


def test_a_usb_disk_comes_grows_and_goes(guest: VolumeGuest, make_file: MakeFile) -> None:
    path = make_file()
    device = usb_disk(path)
    name = guest.attach(device).disk.device_name
    appears(guest, name)
    assert "usb" in guest.shell.run(f"readlink -f /sys/block/{name}")
    guest.shell.run(f"seq 1 5000 | dd of=/dev/{name} bs=64k conv=fsync 2>/dev/null")
    assert checksum_in_guest(guest, name) == checksum_of(path)
    assert extended(guest, device).guest_size_bytes == 16 * MIB
    assert rescanned(guest, name) == 16 * MIB
    guest.detach(device.volume.volume_id)
    disappears(guest, name)
    assert path.read_bytes().startswith(b"1\n2\n3\n")


def test_nothing_is_lost_on_usb_by_a_swap_and_a_snapshot(
    guest: VolumeGuest, make_file: MakeFile
) -> None:
    old, new = usb_disk(make_file()), make_file()
    name = guest.attach(old).disk.device_name
    appears(guest, name)
    volume = file_volume(new).volume
    written = turned_while_it_writes(guest, name, old.volume.volume_id, volume)
    seen = checksum_in_guest(guest, name)
    guest.detach(volume.volume_id)
    disappears(guest, name)
    assert numbers_in(new) == list(range(1, written + 1))
    assert checksum_of(new) == seen


def test_nothing_is_lost_on_sata_by_a_swap_and_a_snapshot(
    guest: VolumeGuest, make_file: MakeFile, sata_disk: BlockDevice
) -> None:
    new = make_file(size_bytes=16 * MIB)
    volume = file_volume(new).volume
    written = turned_while_it_writes(guest, _SATA, sata_disk.volume.volume_id, volume)
    assert checksum_in_guest(guest, _SATA) == checksum_of(new)
    assert numbers_in(new)[:written] == list(range(1, written + 1))


def turned_while_it_writes(
    guest: VolumeGuest, name: str, old_id: str, new: VolumeConnection
) -> int:
    """Swaps a disk's volume, and takes a snapshot away again; gives how much the guest wrote."""
    stub: Any = guest.connection.volumes
    which: dict[str, Any] = {"instance_id": guest.instance_id}
    of_new = {**which, "volume_id": new.volume_id, "snapshot_id": new.volume_id}
    swap = volume_pb2.SwapVolumeRequest(**which, old_volume_id=old_id, new_volume=new)
    take = volume_pb2.CreateVolumeSnapshotRequest(**of_new)
    delete = volume_pb2.DeleteVolumeSnapshotRequest(**of_new)
    with writing(guest, name):
        for call, request in (
            (stub.SwapVolume, swap),
            (stub.CreateVolumeSnapshot, take),
            (stub.DeleteVolumeSnapshot, delete),
        ):
            ended_well(guest, call(request, timeout=TIMEOUT_S))
    return int(guest.shell.run("cat /run/written"))
