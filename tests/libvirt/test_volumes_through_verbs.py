"""Volumes of every live kind, keys and passwords among them, through all that remakes a machine.

After each verb the guest has them with what it wrote, and writes anew; after the destroy there is
no secret, and the storage is its owner's as before.
"""

import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import libvirt
import pytest
from virtrpc.v1 import instance_pb2, spec_pb2
from virtrpc.v1.spec_pb2 import BlockDevice, VolumeConnection

from tests.conformance.volume.conftest import MIB, TIMEOUT_S, VolumeGuest, file_volume
from tests.conformance.volume.test_guest_data import appears
from tests.daemon import DaemonProcess
from tests.instances import console_until, destroyed, small_spec, succeeded
from tests.libvirt.test_volume_secrets import (  # noqa: F401 - `system` is a fixture
    KEY,
    PASSWORD,
    encrypted,
    found_in,
    secrets,
    system,
)
from tests.libvirtd import LibvirtdHost
from tests.remaking import REMAKING, booted_by, called
from tests.storage_servers import TARGET, iscsi_server, loop_device, nbd_server

pytestmark = [pytest.mark.libvirt, pytest.mark.long, pytest.mark.timeout(300)]


@dataclass
class Stored:
    """A guest with volumes, and what is on each."""

    guest: VolumeGuest
    devices: Mapping[str, BlockDevice]
    written: dict[str, str] = field(default_factory=dict)

    def call(self, verb: str, **fields: Any) -> None:
        """Calls a verb of the instance, which succeeds."""
        self.guest.leave_shell()
        called(self.guest.connection, self.guest.instance_id, verb, **fields)

    def boots(self, verb: str, **fields: Any) -> None:
        """Calls a verb after which the guest starts anew."""
        self.guest.leave_shell()
        booted_by(self.guest.connection, self.guest.instance_id, verb, **fields)

    def is_whole(self) -> None:
        """All volumes are there, told and seen, with what was last written; writes anew."""
        ids = {device.volume.volume_id for device in self.devices.values()}
        for machine in ("persistent", "effective"):
            assert set(self.guest.disks(machine)) == ids
        for kind, device in self.devices.items():
            seen = self._device(device)
            was = self.written.get(kind, "")
            if was:
                read = self.guest.shell.run(f"head -c {len(was)} {seen}")
                assert read == was, kind
            self.written[kind] = f"{kind}-{uuid.uuid4()}"
            self.guest.shell.run(f"echo {self.written[kind]} | dd of={seen} conv=fsync 2>/dev/null")
        self.guest.shell.run("echo 3 >/proc/sys/vm/drop_caches")

    def _device(self, device: BlockDevice) -> str:
        """As the guest calls it, which it may do otherwise after each start."""
        if device.bus == spec_pb2.DISK_BUS_SCSI:
            appears(self.guest, "sda")
            return "/dev/sda"
        find = f"grep -l {device.volume.volume_id[:20]} /sys/block/vd*/serial"
        found = self.guest.shell.run(f"until {find}; do usleep 20000; done")
        return f"/dev/{found.split('/')[3]}"


def volumes(folder: Path, servers: ExitStack) -> dict[str, BlockDevice]:
    """One of each kind."""

    def raw(name: str) -> Path:
        path = folder / f"{name}.raw"
        path.write_bytes(bytes(8 * MIB))
        return path

    def served(**source: Any) -> BlockDevice:
        return BlockDevice(volume=VolumeConnection(volume_id=str(uuid.uuid4()), **source))

    nbd = servers.enter_context(nbd_server(raw("nbd")))
    iscsi = servers.enter_context(iscsi_server(raw("iscsi"), user="joe", password=PASSWORD))
    loop = servers.enter_context(loop_device(raw("loop")))
    chap = {"chap_username": "joe", "chap_password": PASSWORD}
    made = {
        "file": file_volume(raw("file")),
        "scsi": file_volume(raw("scsi")),
        "block": served(local_block={"path": loop}),
        "nbd": served(nbd={"host": "127.0.0.1", "port": nbd}),
        "iscsi": served(
            iscsi={"host": "127.0.0.1", "port": iscsi, "target_iqn": TARGET, "lun": 1, **chap}
        ),
        "luks": encrypted(folder / "luks.raw"),
    }
    made["scsi"].bus = spec_pb2.DISK_BUS_SCSI
    return made


@pytest.fixture(scope="module")
def stored(system: DaemonProcess) -> Iterator[Stored]:  # noqa: F811
    spec = small_spec(backend="libvirt", boot="disk")
    request = instance_pb2.SpawnInstanceRequest(instance_id=str(uuid.uuid4()), spec=spec)
    with ExitStack() as servers, system.connect() as connection:
        operation = connection.instances.SpawnInstance(request, timeout=TIMEOUT_S)
        try:
            succeeded(connection, operation)
            console_until(connection, request.instance_id, b"virtrpc guest ready")
            guest = VolumeGuest(connection, request.instance_id, "libvirt")
            made = Stored(guest, volumes(system.volume_dir, servers))
            for device in made.devices.values():
                guest.attach(device)
            made.is_whole()
            yield made
            guest.leave_shell()
        finally:
            destroyed(connection, request.instance_id)


def test_suspended_and_resumed(stored: Stored) -> None:
    stored.call("SuspendInstance")
    stored.call("ResumeInstance")
    stored.is_whole()


def test_an_image_is_taken(stored: Stored) -> None:
    image = f"snapshot-{uuid.uuid4()}"
    stored.call("SnapshotInstance", image_id=image)
    stored.is_whole()


def test_deleted_softly_and_restored(stored: Stored) -> None:
    stored.call("SoftDeleteInstance")
    stored.boots("RestoreInstance")
    stored.is_whole()


@pytest.mark.parametrize("verb", REMAKING)
def test_started_anew(stored: Stored, verb: str) -> None:
    stored.boots(verb, **REMAKING[verb])
    stored.is_whole()


def test_nothing_is_left(
    stored: Stored,
    libvirtd: LibvirtdHost,
    system: DaemonProcess,  # noqa: F811
    qemu_driver: libvirt.virConnect,
) -> None:
    assert len(secrets(qemu_driver)) == 2
    stored.guest.leave_shell()
    destroyed(stored.guest.connection, stored.guest.instance_id)
    assert secrets(qemu_driver) == []
    for canary in (KEY, PASSWORD):
        assert found_in(canary, libvirtd, system) == []
    for kind in ("file", "scsi", "block", "nbd", "iscsi"):
        path = Path(system.volume_dir / f"{'loop' if kind == 'block' else kind}.raw")
        assert path.read_bytes().startswith(stored.written[kind].encode())
