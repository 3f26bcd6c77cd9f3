"""What the daemon's death cut off in a machine that runs: a guest outlives the removal of a device,
and keeps none that nobody knows of; nor does asking cost much.
"""

import os
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import psutil
import pytest
from qemu.qmp import QMPClient
from virtrpc.v1 import interface_pb2, spec_pb2, volume_pb2
from virtrpc.v1.instance_pb2 import (
    MountShareRequest,
    PauseInstanceRequest,
    PowerOffInstanceRequest,
    PowerOnInstanceRequest,
    UmountShareRequest,
    UnpauseInstanceRequest,
)
from virtrpc.v1.spec_pb2 import BlockDevice, InterfaceSpec, UserModeNetwork

from backends.libvirt.blueprint.interfaces import interface_alias
from backends.libvirt.lost_removals import stand_ins
from backends.libvirt.status_files import read_status
from backends.libvirt.xml.element import parse, to_text
from backends.libvirt.xml.shares import share_alias
from tests.conformance.conftest import state_of
from tests.conformance.volume.conftest import MIB, file_volume
from tests.daemon import Connection, DaemonProcess
from tests.guest_shell import GuestShell
from tests.instances import TIMEOUT_S, console_until, small_spec, spawned
from tests.libvirt.cut_off import at_monitor, had_by, unplug, unwritten, written_by_libvirt
from tests.machines import qemu_pids
from tests.refusals import refused

NAME = "cut-off"
PORT_ID, SHARE_ID, LOST_SHARE_ID = (str(uuid.uuid4()) for _ in range(3))
PORT = InterfaceSpec(port_id=PORT_ID, user=UserModeNetwork())
START_S = 15


@pytest.fixture(scope="module")
def daemon(
    short_folder: Callable[[], Path], guest_images: Callable[[DaemonProcess], None]
) -> Iterator[DaemonProcess]:
    folder = short_folder()
    volumes = folder / "volumes"
    arguments = [f"--share-dir={folder / 'sources'}", f"--volume-dir={volumes}"]
    with DaemonProcess(folder, backend="libvirt", arguments=arguments) as made:
        for path in (volumes, made.sources / "docs", made.sources / "lost"):
            path.mkdir(parents=True)
        guest_images(made)
        yield made.start()


@pytest.fixture(scope="module")
def guest(daemon: DaemonProcess) -> Iterator[str]:
    """A guest that has booted, with an interface and a share."""
    spec = small_spec(backend="libvirt", name=NAME)
    spec.interfaces.append(PORT)
    with daemon.connect() as connection, spawned(connection, spec) as instance_id:
        off = PowerOffInstanceRequest(instance_id=instance_id)
        off.timeout.FromSeconds(0)
        connection.instances.PowerOffInstance(off)
        for share_id, name in ((SHARE_ID, "docs"), (LOST_SHARE_ID, "lost")):
            mount = MountShareRequest(instance_id=instance_id, share_id=share_id, tag=name)
            mount.path = str(daemon.sources / name)
            connection.instances.MountShare(mount)
        connection.instances.PowerOnInstance(PowerOnInstanceRequest(instance_id=instance_id))
        console_until(connection, instance_id, b"virtrpc guest ready")
        yield instance_id


def remove(daemon: DaemonProcess, device: str, command: str, behind: str) -> None:
    """What libvirt has done to a device before it writes that down; no daemon runs."""
    noted = read_status(written_by_libvirt(daemon, NAME)[0])
    assert noted is not None
    assert device in stand_ins(noted)

    async def ask(client: QMPClient) -> None:
        await unplug(client, device)
        await client.execute(command, {"id": behind})

    at_monitor(daemon, NAME, ask)


def runs_on(daemon: DaemonProcess, instance_id: str, pids: list[int]) -> None:
    assert qemu_pids(instance_id) == pids
    with daemon.connect() as connection:
        shell = GuestShell(connection, instance_id)
        assert shell.run("echo still here") == "still here"
        shell.close()


@pytest.mark.libvirt
def test_guest_outlives_the_cut_off_removal_of_an_interface(
    daemon: DaemonProcess, guest: str
) -> None:
    pids, alias = qemu_pids(guest), interface_alias(PORT_ID)
    daemon.kill()
    remove(daemon, alias, "netdev_del", f"host{alias}")
    daemon.start()
    runs_on(daemon, guest, pids)
    with daemon.connect() as connection:
        assert not state_of(connection, guest).effective.interfaces
        detach = interface_pb2.DetachInterfaceRequest(instance_id=guest, port_id=PORT_ID)
        detach.timeout.FromSeconds(30)
        attach = interface_pb2.AttachInterfaceRequest(instance_id=guest, interface=PORT)
        for _ in range(2):
            connection.interfaces.DetachInterface(detach, timeout=TIMEOUT_S)
            attached = connection.interfaces.AttachInterface(attach, timeout=TIMEOUT_S).instance
            for machine in (attached.effective, attached.persistent):
                assert [one.port_id for one in machine.interfaces] == [PORT_ID]
    assert qemu_pids(guest) == pids


@pytest.mark.libvirt
def test_guest_outlives_the_cut_off_removal_of_a_share(daemon: DaemonProcess, guest: str) -> None:
    pids, alias = qemu_pids(guest), share_alias(SHARE_ID)
    daemon.kill()
    remove(daemon, alias, "chardev-remove", f"chr-vu-{alias}")
    daemon.start()
    runs_on(daemon, guest, pids)
    umount = UmountShareRequest(instance_id=guest, share_id=SHARE_ID)
    with daemon.connect() as connection:
        connection.instances.UmountShare(umount, timeout=TIMEOUT_S)
        assert SHARE_ID not in {share.share_id for share in state_of(connection, guest).shares}
    assert qemu_pids(guest) == pids


@pytest.mark.libvirt
def test_stopped_machine_does_not_hold_up_the_start(daemon: DaemonProcess, guest: str) -> None:
    (pid,) = qemu_pids(guest)
    daemon.kill()
    os.kill(pid, signal.SIGSTOP)
    try:
        began = time.monotonic()
        daemon.start()
        assert time.monotonic() - began < START_S
    finally:
        os.kill(pid, signal.SIGCONT)
    runs_on(daemon, guest, [pid])


@dataclass(frozen=True)
class Devices:
    """What a machine is given while it runs; of the first of a kind there is another."""

    guest: str
    volumes: tuple[BlockDevice, ...]
    interfaces: tuple[InterfaceSpec, ...]

    def attach(self, connection: Connection) -> None:
        """All of them, one after the other."""
        for interface in self.interfaces:
            port = interface_pb2.AttachInterfaceRequest(instance_id=self.guest, interface=interface)
            connection.interfaces.AttachInterface(port, timeout=TIMEOUT_S)
        for device in self.volumes:
            volume = volume_pb2.AttachVolumeRequest(instance_id=self.guest, device=device)
            connection.volumes.AttachVolume(volume, timeout=TIMEOUT_S)

    def detach(self, connection: Connection) -> None:
        """All of them."""
        for interface in self.interfaces:
            port = interface_pb2.DetachInterfaceRequest(instance_id=self.guest)
            port.port_id = interface.port_id
            connection.interfaces.DetachInterface(port, timeout=TIMEOUT_S)
        for device in self.volumes:
            volume = volume_pb2.DetachVolumeRequest(instance_id=self.guest)
            volume.volume_id = device.volume.volume_id
            connection.volumes.DetachVolume(volume, timeout=TIMEOUT_S)


@pytest.fixture
def devices(daemon: DaemonProcess, guest: str) -> Devices:
    paths = [daemon.volume_dir / f"{uuid.uuid4()}.raw" for _ in range(3)]
    for path in paths:
        path.write_bytes(bytes(MIB))
    volumes = tuple(map(file_volume, paths))
    volumes[-1].bus = spec_pb2.DISK_BUS_SCSI
    ports = [InterfaceSpec(port_id=str(uuid.uuid4()), user=UserModeNetwork()) for _ in range(2)]
    return Devices(guest=guest, volumes=volumes, interfaces=tuple(ports))


def seen_by(daemon: DaemonProcess, guest: str) -> str:
    """Names of the disks and interfaces that a guest has."""
    with daemon.connect() as connection:
        shell = GuestShell(connection, guest)
        names = shell.run("ls /sys/block /sys/class/net /sys/bus/virtio/devices")
        shell.close()
    return names


async def leave_what_is_behind(client: QMPClient, devices: list[str]) -> None:
    """And a key, which no volume of the embedded driver has, as that keeps no secrets."""
    for device in devices:
        await unplug(client, device)
    key = {"qom-type": "secret", "id": "libvirt-9-format-encryption-secret0", "data": "key"}
    await client.execute("object-add", key)


@pytest.mark.libvirt
def test_guest_has_no_device_whose_attachment_was_cut_off(
    daemon: DaemonProcess, guest: str, devices: Devices
) -> None:
    """Before QEMU was given the device itself, or after."""
    pids, seen = qemu_pids(guest), seen_by(daemon, guest)
    daemon.kill()
    had = at_monitor(daemon, NAME, had_by)
    daemon.start()
    with unwritten(daemon, NAME), daemon.connect() as connection:
        devices.attach(connection)
    more = at_monitor(daemon, NAME, had_by) - had
    volume, *_ = sorted(name for name in more if name.startswith("ua-volume-"))
    assert {interface_alias(one.port_id) for one in devices.interfaces} < more
    first = [volume, interface_alias(devices.interfaces[0].port_id)]
    at_monitor(daemon, NAME, lambda client: leave_what_is_behind(client, first))
    daemon.start()
    assert (qemu_pids(guest), seen_by(daemon, guest)) == (pids, seen)
    daemon.kill()
    assert at_monitor(daemon, NAME, had_by) == had
    daemon.start()
    with daemon.connect() as connection:
        devices.attach(connection)
        devices.detach(connection)
    assert qemu_pids(guest) == pids


@pytest.mark.libvirt
def test_guest_has_no_share_whose_mount_was_cut_off(daemon: DaemonProcess, guest: str) -> None:
    """libvirt 9.0 gives a machine that it has found again no new one: so an old one is struck."""
    pids, alias = qemu_pids(guest), share_alias(LOST_SHARE_ID)
    assert qemu_pids(str(daemon.sources / "lost"), program="virtiofsd")
    daemon.kill()
    for path in written_by_libvirt(daemon, NAME):
        document = parse(path.read_text(encoding="utf-8"))
        for devices in document.iter("devices"):
            for device in list(devices):
                if alias in to_text(device):
                    devices.remove(device)
        path.write_text(to_text(document), encoding="utf-8")
    daemon.start()
    runs_on(daemon, guest, pids)
    with daemon.connect() as connection:
        left = {share.share_id for share in state_of(connection, guest).shares}
    daemon.kill()
    had = at_monitor(daemon, NAME, had_by)
    daemon.start()
    assert LOST_SHARE_ID not in left
    assert not [name for name in had if alias in name]
    assert not qemu_pids(str(daemon.sources / "lost"), program="virtiofsd")


@pytest.mark.libvirt
def test_device_that_the_guest_keeps_is_cut_off_and_told(
    daemon: DaemonProcess, guest: str, devices: Devices
) -> None:
    (pid,) = qemu_pids(guest)
    with unwritten(daemon, NAME), daemon.connect() as connection:
        connection.instances.PauseInstance(PauseInstanceRequest(instance_id=guest))
        devices.attach(connection)
    daemon.start()
    files = {str(path) for path in daemon.volume_dir.iterdir()}
    assert not files & {file.path for file in psutil.Process(pid).open_files()}
    with daemon.connect() as connection:
        with refused(grpc.StatusCode.INTERNAL) as refusal:
            devices.attach(connection)
        assert "not_undone" in refusal.metadata
        connection.instances.UnpauseInstance(UnpauseInstanceRequest(instance_id=guest))
    runs_on(daemon, guest, [pid])
    daemon.kill()
    daemon.start()
    with daemon.connect() as connection:
        devices.attach(connection)
        devices.detach(connection)
    runs_on(daemon, guest, [pid])
