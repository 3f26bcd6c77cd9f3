"""Keys and passwords of volumes on a libvirtd: used, found nowhere, and gone with the volume."""

import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import libvirt
import psutil
import pytest
from virtrpc.v1 import volume_pb2
from virtrpc.v1.spec_pb2 import BlockDevice, VolumeConnection

from tests.conformance.volume.conftest import MIB, TIMEOUT_S, VolumeGuest, file_volume
from tests.conformance.volume.test_change import call
from tests.conformance.volume.test_guest_data import appears, disappears
from tests.daemon import DaemonProcess
from tests.instances import console_until, small_spec, spawned
from tests.libvirt.canaries import forms_of
from tests.libvirtd import LibvirtdHost
from tests.refusals import refused
from tests.storage_servers import TARGET, iscsi_server

pytestmark = pytest.mark.libvirt
KEY, PASSWORD = "canary.passphrase", "canary.chap.pw"
FAILED = grpc.StatusCode.FAILED_PRECONDITION


@pytest.fixture(scope="module")
def system(
    libvirtd: LibvirtdHost,
    short_folder: Callable[[], Path],
    guest_images: Callable[[DaemonProcess], None],
) -> Iterator[DaemonProcess]:
    """A daemon on the libvirtd of the module."""
    folder = short_folder()
    allowed = [f"--volume-dir={place}" for place in ("/dev", folder / "volumes")]
    arguments = [f"--libvirt-uri={libvirtd.uri}", *allowed]
    with DaemonProcess(folder, backend="libvirt", arguments=arguments) as daemon:
        daemon.volume_dir.mkdir()
        guest_images(daemon)
        yield daemon.start()


@pytest.fixture(scope="module")
def guest(system: DaemonProcess) -> Iterator[VolumeGuest]:
    """A guest that has booted."""
    spec = small_spec(backend="libvirt")
    with system.connect() as connection, spawned(connection, spec) as instance_id:
        console_until(connection, instance_id, b"virtrpc guest ready")
        made = VolumeGuest(connection, instance_id, "libvirt")
        yield made
        made.leave_shell()


@pytest.fixture
def luks(system: DaemonProcess) -> Iterator[BlockDevice]:
    """An encrypted volume."""
    device = encrypted(system.volume_dir / "luks.raw")
    yield device
    Path(device.volume.local_file.path).unlink()


def encrypted(path: Path) -> BlockDevice:
    """A new encrypted volume of 8 MiB, with KEY."""
    key = path.with_suffix(".key")
    key.write_text(KEY)
    create = ["qemu-img", "create", "-q", "--object", f"secret,id=s,file={key}", "-f", "luks"]
    for _ in range(20):  # it sometimes cannot measure its own speed: QEMU's fault
        done = subprocess.run(
            [*create, "-o", "key-secret=s,iter-time=10", str(path), "8M"], check=False
        )
        if done.returncode == 0:
            break
        path.unlink(missing_ok=True)
    key.unlink()
    device = file_volume(path)
    device.volume.encryption.passphrase = KEY.encode()
    return device


def found_in(canary: str, *hosts: LibvirtdHost | DaemonProcess) -> list[str]:
    """Places where a secret can be read, but for libvirt's own keeping of secrets."""
    places = []
    for host in hosts:
        for path in host.folder.rglob("*"):
            kept = path.is_relative_to(host.folder / "etc" / "secrets")
            if path.is_file() and "images" not in path.parts and not kept:
                content = path.read_bytes()
                places += [str(path) for form in forms_of(canary) if form.encode() in content]
    for process in psutil.process_iter(["cmdline"]):
        if any(form in " ".join(process.info["cmdline"] or ()) for form in forms_of(canary)):
            places.append(f"process {process.pid}")
    return places


def secrets(qemu_driver: libvirt.virConnect) -> list[str]:
    return [secret.usageID() for secret in qemu_driver.listAllSecrets()]


def test_an_encrypted_volume(
    guest: VolumeGuest,
    luks: BlockDevice,
    libvirtd: LibvirtdHost,
    system: DaemonProcess,
    qemu_driver: libvirt.virConnect,
) -> None:
    disk = guest.attach(luks).disk
    assert disk.encrypted
    assert guest.attach(luks).disk == disk, "a repeat"
    assert len(secrets(qemu_driver)) == 1
    appears(guest)
    assert guest.shell.run("blockdev --getsize64 /dev/vda") == str(8 * MIB)
    guest.shell.run("echo plain-text-of-the-guest | dd of=/dev/vda conv=fsync 2>/dev/null")
    path = Path(luks.volume.local_file.path)
    reply = guest.connection.volumes.ExtendVolume(
        volume_pb2.ExtendVolumeRequest(
            instance_id=guest.instance_id,
            volume_id=disk.volume_id,
            size_bytes=path.stat().st_size + MIB,
        ),
        timeout=TIMEOUT_S,
    )
    assert reply.guest_size_bytes == 9 * MIB
    assert guest.shell.run("blockdev --getsize64 /dev/vda") == str(9 * MIB)
    domain = qemu_driver.lookupByUUIDString(guest.instance_id)
    assert KEY not in domain.XMLDesc(libvirt.VIR_DOMAIN_XML_SECURE)
    assert found_in(KEY, libvirtd, system) == []
    guest.detach(disk.volume_id, retry_interval={"seconds": 1})
    disappears(guest)
    assert secrets(qemu_driver) == []
    assert b"plain-text" not in path.read_bytes()


def test_a_passphrase_that_does_not_open_it(
    guest: VolumeGuest, luks: BlockDevice, qemu_driver: libvirt.virConnect
) -> None:
    luks.volume.encryption.passphrase = b"wrong"
    with refused(FAILED, "ENCRYPTION_MISMATCH"):
        guest.attach(luks)
    assert not guest.disks()
    assert not guest.disks("effective")
    assert secrets(qemu_driver) == []


def test_an_instance_made_with_it_starts_again(
    guest: VolumeGuest, luks: BlockDevice, qemu_driver: libvirt.virConnect
) -> None:
    spec = small_spec(backend="libvirt")
    spec.block_devices.add().CopyFrom(luks)
    with spawned(guest.connection, spec) as instance_id:
        other = VolumeGuest(guest.connection, instance_id, "libvirt")
        assert other.disks("effective")[luks.volume.volume_id].encrypted
        other.power_off()
        other.power_on()
        assert len(secrets(qemu_driver)) == 1
    assert secrets(qemu_driver) == []


def test_iscsi_with_chap(
    guest: VolumeGuest,
    libvirtd: LibvirtdHost,
    system: DaemonProcess,
    qemu_driver: libvirt.virConnect,
) -> None:
    path = system.volume_dir / "target.raw"
    path.write_bytes(bytes(8 * MIB))
    device = BlockDevice(volume=VolumeConnection(volume_id=str(uuid.uuid4())))
    with iscsi_server(path, user="joe", password=PASSWORD) as port:
        iscsi = device.volume.iscsi
        iscsi.host, iscsi.port, iscsi.target_iqn, iscsi.lun = "127.0.0.1", port, TARGET, 1
        iscsi.chap_username, iscsi.chap_password = "joe", "wrong.password"
        with refused(FAILED, "STORAGE_REFUSED"):
            guest.attach(device)
        assert secrets(qemu_driver) == []
        iscsi.chap_password = PASSWORD
        disk = guest.attach(device).disk
        appears(guest)
        guest.shell.run("echo by-iscsi | dd of=/dev/vda conv=fsync 2>/dev/null")
        other = file_volume(path.with_name("other.raw")).volume
        other.volume_id = disk.volume_id
        Path(other.local_file.path).write_bytes(bytes(8 * MIB))
        swap = {"old_volume_id": disk.volume_id, "new_volume": other}
        with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST") as refusal:
            call(guest, "SwapVolume", **swap, validate_only=True)
        assert refusal.fields == ["new_attachment_id"]
        # tgtadm was given it as an argument, by this test.
        assert found_in(PASSWORD, libvirtd, system) == []
        guest.detach(disk.volume_id, retry_interval={"seconds": 1})
    assert path.read_bytes().startswith(b"by-iscsi")
    assert secrets(qemu_driver) == []
