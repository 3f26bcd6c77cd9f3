"""Volumes attached and detached, on the running machine and on the one that starts next."""

import uuid
from collections.abc import Callable
from functools import reduce
from pathlib import Path

import grpc
import pytest
from virtrpc.v1 import spec_pb2
from virtrpc.v1.spec_pb2 import BlockDevice

from tests.conformance.volume.conftest import MIB, VolumeGuest, file_volume
from tests.refusals import refused

MakeFile = Callable[..., Path]
FAILED = grpc.StatusCode.FAILED_PRECONDITION
INVALID = grpc.StatusCode.INVALID_ARGUMENT
UNKNOWN = "00000000-0000-4000-8000-00000000dead"


@pytest.mark.parametrize("format_", ["raw", "qcow2"])
def test_a_file_comes_and_goes(empty_guest: VolumeGuest, make_file: MakeFile, format_: str) -> None:
    path = make_file(format_=format_)
    device = file_volume(path, discard=True)
    volume_id = device.volume.volume_id
    disk = empty_guest.attach(device).disk
    assert (disk.volume_id, disk.attachment_id, disk.role) == (volume_id, volume_id, "volume")
    assert (disk.device_name, disk.serial) == ("vda", volume_id)
    assert (disk.source, disk.format) == (str(path), device.volume.local_file.format)
    assert disk.discard
    assert empty_guest.disks()[volume_id] == disk
    assert empty_guest.disks("effective")[volume_id] == disk
    gone = empty_guest.detach(volume_id)
    assert not gone.already_gone
    assert not empty_guest.disks()
    assert not empty_guest.disks("effective")
    assert path.exists(), "a volume's data are never deleted"
    assert empty_guest.detach(volume_id).already_gone


def test_a_repeat_changes_nothing(empty_guest: VolumeGuest, make_file: MakeFile) -> None:
    device = file_volume(make_file())
    first = empty_guest.attach(device).disk
    assert empty_guest.attach(device).disk == first
    device.device_name, device.bus = "/dev/vda", spec_pb2.DISK_BUS_VIRTIO
    assert empty_guest.attach(device).disk == first
    device.volume.read_only = True
    with refused(grpc.StatusCode.ALREADY_EXISTS, "ATTACHMENT_DIFFERS"):
        empty_guest.attach(device)


def test_a_late_detach_does_not_hit_a_newer_attachment(
    empty_guest: VolumeGuest, make_file: MakeFile
) -> None:
    device = file_volume(make_file())
    volume_id = device.volume.volume_id
    device.attachment_id = str(uuid.uuid4())
    assert empty_guest.attach(device).disk.attachment_id == device.attachment_id
    late = empty_guest.detach(volume_id, attachment_id=str(uuid.uuid4()))
    assert late.already_gone
    assert volume_id in empty_guest.disks("effective")
    assert not empty_guest.detach(volume_id, attachment_id=device.attachment_id).already_gone


def test_a_stopped_instance_gets_it_at_its_next_start(
    empty_guest: VolumeGuest, make_file: MakeFile
) -> None:
    empty_guest.power_off()
    device = file_volume(make_file())
    device.bus, device.boot_index = spec_pb2.DISK_BUS_SCSI, 0
    disk = empty_guest.attach(device).disk
    assert (disk.device_name, disk.bus, disk.boot_index) == ("sda", spec_pb2.DISK_BUS_SCSI, 0)
    empty_guest.power_on()
    assert empty_guest.disks("effective")[disk.volume_id] == disk
    with refused(FAILED, "NOT_HOT_PLUGGABLE"):
        empty_guest.detach(disk.volume_id)
    empty_guest.power_off()
    assert not empty_guest.detach(disk.volume_id).already_gone
    assert not empty_guest.disks()
    empty_guest.power_on()


def test_sata_needs_a_stopped_machine(empty_guest: VolumeGuest, make_file: MakeFile) -> None:
    device = file_volume(make_file())
    device.bus = spec_pb2.DISK_BUS_SATA
    with refused(FAILED, "NOT_HOT_PLUGGABLE"):
        empty_guest.attach(device)
    empty_guest.power_off()
    device.device_type = spec_pb2.DISK_DEVICE_TYPE_CDROM
    disk = empty_guest.attach(device).disk
    assert (disk.device_name, disk.read_only) == ("sda", True)
    assert not empty_guest.detach(disk.volume_id).already_gone
    empty_guest.power_on()


def test_limits_and_the_like_are_told(empty_guest: VolumeGuest, make_file: MakeFile) -> None:
    device = file_volume(make_file(), read_only=True, multi_attach=True)
    device.volume.qos.total_iops, device.volume.qos.read_bytes_per_s = 500, 10 * MIB
    disk = empty_guest.attach(device).disk
    assert disk.qos == device.volume.qos
    assert disk.read_only
    assert disk.multi_attach
    assert empty_guest.disks("effective")[disk.volume_id] == disk


def test_validate_only_changes_nothing(empty_guest: VolumeGuest, make_file: MakeFile) -> None:
    device = file_volume(make_file())
    empty_guest.attach(device, validate_only=True)
    assert not empty_guest.disks()
    empty_guest.attach(device)
    empty_guest.detach(device.volume.volume_id, validate_only=True)
    assert device.volume.volume_id in empty_guest.disks("effective")


def _at(path: str, value: object) -> Callable[[BlockDevice], object]:
    """Sets a field by its path."""
    *parents, name = path.split(".")
    return lambda device: setattr(reduce(getattr, parents, device), name, value)


QOS = "device.volume.qos"
FILE, DEVICE = "device.volume.local_file.path", "device.volume.local_block.path"


@pytest.mark.parametrize(
    ("change", "answer"),
    [
        (_at("volume.local_file.path", "/etc/passwd"), (INVALID, "PATH_NOT_ALLOWED", FILE)),
        (
            _at("volume.local_file.path", "/dev/../etc/passwd"),
            (INVALID, "PATH_NOT_ALLOWED", FILE),
        ),
        (
            _at("volume.local_file.format", spec_pb2.DISK_FORMAT_QCOW2),
            (FAILED, "UNSAFE_VOLUME", FILE),
        ),
        (_at("volume.local_block.path", "/dev/null"), (INVALID, "PATH_NOT_ALLOWED", DEVICE)),
        (
            _at("volume.nbd.socket_path", "/run/libvirt/libvirt-sock"),
            (INVALID, "PATH_NOT_ALLOWED", "device.volume.nbd.socket_path"),
        ),
        (
            _at("bus", spec_pb2.DISK_BUS_NVME),
            (grpc.StatusCode.UNIMPLEMENTED, "CAPABILITY_MISSING", "device.bus"),
        ),
        (
            _at("device_type", spec_pb2.DISK_DEVICE_TYPE_LUN),
            (INVALID, "INVALID_REQUEST", "device.bus"),
        ),
        (_at("volume.qos.burst_total_iops", 9), (INVALID, "INVALID_REQUEST", QOS)),
        (_at("volume.qos.burst_total_bytes_per_s", 9), (INVALID, "INVALID_REQUEST", QOS)),
        (_at("tag", "data"), (grpc.StatusCode.UNIMPLEMENTED, "CAPABILITY_MISSING", "device.tag")),
    ],
)
def test_what_cannot_be_attached(
    empty_guest: VolumeGuest,
    make_file: MakeFile,
    change: Callable[[BlockDevice], object],
    answer: tuple[grpc.StatusCode, str, str],
) -> None:
    device = file_volume(make_file())
    change(device)
    code, reason, field = answer
    with refused(code, reason) as refusal:
        empty_guest.attach(device)
    assert refusal.fields == [field], refusal
    assert not empty_guest.disks()


def test_only_a_volume_can_be_attached(empty_guest: VolumeGuest) -> None:
    device = BlockDevice()
    device.ephemeral.size_mib = 1
    with refused(INVALID, "INVALID_REQUEST"):
        empty_guest.attach(device)


def test_a_name_of_another_bus_is_no_name(empty_guest: VolumeGuest, make_file: MakeFile) -> None:
    device = file_volume(make_file())
    device.device_name, device.bus = "sda", spec_pb2.DISK_BUS_VIRTIO
    with refused(INVALID, "DEVICE_NAME_MISMATCH"):
        empty_guest.attach(device)


def test_a_file_that_is_not_there(empty_guest: VolumeGuest, make_file: MakeFile) -> None:
    path = make_file()
    device = file_volume(path)
    path.unlink()
    with refused(grpc.StatusCode.NOT_FOUND, "VOLUME_NOT_FOUND"):
        empty_guest.attach(device)
    path.touch()


def test_links_that_lead_out_are_refused(
    empty_guest: VolumeGuest, make_file: MakeFile, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_bytes(bytes(MIB))
    link = make_file("link.raw")
    link.unlink()
    link.symlink_to(tmp_path / "secret")
    with refused(INVALID, "PATH_NOT_ALLOWED"):
        empty_guest.attach(file_volume(link))


def test_unknown_instance_and_volume(empty_guest: VolumeGuest, make_file: MakeFile) -> None:
    nobody = VolumeGuest(empty_guest.connection, UNKNOWN, empty_guest.backend)
    with refused(grpc.StatusCode.NOT_FOUND, "INSTANCE_NOT_FOUND"):
        nobody.attach(file_volume(make_file()))
    with refused(grpc.StatusCode.NOT_FOUND, "INSTANCE_NOT_FOUND"):
        nobody.detach(UNKNOWN)
    assert empty_guest.detach(UNKNOWN).already_gone


def test_names_and_boot_places_are_taken_once(
    empty_guest: VolumeGuest, make_file: MakeFile
) -> None:
    first, second = file_volume(make_file()), file_volume(make_file())
    first.device_name, first.boot_index = "vdc", 3
    assert empty_guest.attach(first).disk.device_name == "vdc"
    second.device_name, second.boot_index = "vdc", 3
    with refused(FAILED, "BLOCKED") as refusal:
        empty_guest.attach(second)
    assert set(refusal.preconditions) == {"DEVICE_NAME_TAKEN", "BOOT_INDEX_TAKEN"}
    second.ClearField("device_name")
    second.ClearField("boot_index")
    second.attachment_id = first.volume.volume_id
    with refused(grpc.StatusCode.ALREADY_EXISTS, "ATTACHMENT_DIFFERS"):
        empty_guest.attach(second)
