"""A removal that the daemon's death cut off does not end the guest, nor does asking cost much."""

import asyncio
import os
import signal
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from threading import Thread

import pytest
from qemu.qmp import EventListener, QMPClient
from virtrpc.v1 import interface_pb2
from virtrpc.v1.instance_pb2 import (
    MountShareRequest,
    PowerOffInstanceRequest,
    PowerOnInstanceRequest,
    UmountShareRequest,
)
from virtrpc.v1.spec_pb2 import InterfaceSpec, UserModeNetwork

from backends.libvirt.blueprint.interfaces import interface_alias
from backends.libvirt.lost_removals import put_stand_ins, read_status
from backends.libvirt.xml.shares import share_alias
from tests.conformance.conftest import state_of
from tests.daemon import DaemonProcess
from tests.guest_shell import GuestShell
from tests.instances import TIMEOUT_S, console_until, small_spec, spawned
from tests.machines import qemu_pids

NAME = "lost-removals"
PORT_ID, SHARE_ID = str(uuid.uuid4()), str(uuid.uuid4())
PORT = InterfaceSpec(port_id=PORT_ID, user=UserModeNetwork())
START_S = 15
GREETING = b'{"QMP": {"version": {}, "capabilities": []}}\n'
STATUS = """
<domstatus state="running" pid="1">
  <monitor path="{monitor}" type="unix"/>
  <devices>
    <device alias="net0"/><device alias="net1"/><device alias="fs0"/><device alias="disk0"/>
  </devices>
  <domain type="qemu"><devices>
    <disk type="file"><alias name="disk0"/></disk>
    <filesystem><driver type="virtiofs"/><alias name="fs0"/></filesystem>
    <interface type="user"><alias name="net0"/></interface>
    <interface type="hostdev"><alias name="net1"/></interface>
    <interface type="user"><alias name="net2"/></interface>
  </devices></domain>
</domstatus>
"""


@pytest.fixture(scope="module")
def daemon(
    short_folder: Callable[[], Path], guest_images: Callable[[DaemonProcess], None]
) -> Iterator[DaemonProcess]:
    folder = short_folder()
    arguments = [f"--share-dir={folder / 'sources'}"]
    with DaemonProcess(folder, backend="libvirt", arguments=arguments) as made:
        made.sources.mkdir()
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
        mount = MountShareRequest(
            instance_id=instance_id, share_id=SHARE_ID, tag="docs", path=str(daemon.sources)
        )
        connection.instances.MountShare(mount)
        connection.instances.PowerOnInstance(PowerOnInstanceRequest(instance_id=instance_id))
        console_until(connection, instance_id, b"virtrpc guest ready")
        yield instance_id


def remove(daemon: DaemonProcess, device: str, command: str, behind: str) -> None:
    """What libvirt has done to a device before it writes that down; no daemon runs."""
    machine = read_status(daemon.state_dir / "libvirt/run/qemu" / f"{NAME}.xml")
    assert machine is not None
    assert device in machine.stand_ins

    async def at(monitor: str) -> None:
        client = QMPClient(NAME)
        await client.connect(monitor)
        with client.listener("DEVICE_DELETED") as deleted:
            await client.execute("device_del", {"id": device})
            await _told(deleted, device)
        await client.execute(command, {"id": behind})
        await client.disconnect()

    asyncio.run(asyncio.wait_for(at(machine.monitor), TIMEOUT_S))


async def _told(deleted: EventListener, device: str) -> None:
    async for event in deleted:
        data = event["data"]
        assert isinstance(data, dict)
        if data.get("device") == device:
            return


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
        assert not state_of(connection, guest).shares
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


def test_stand_ins_are_for_what_libvirt_has_seen_and_would_remove(tmp_path: Path) -> None:
    path = tmp_path / "web.xml"
    path.write_text(STATUS.format(monitor="/run/web.sock"), encoding="utf-8")
    machine = read_status(path)
    assert machine is not None
    assert (machine.name, machine.monitor) == ("web", "/run/web.sock")
    found = {alias: one.arguments["id"] for alias, one in machine.stand_ins.items()}
    assert found == {"net0": "hostnet0", "fs0": "chr-vu-fs0"}


@pytest.mark.parametrize("text", ["", "<domstatus>", "\0", "<domstatus/>"])
def test_status_that_says_nothing_is_passed_over(tmp_path: Path, text: str) -> None:
    (tmp_path / "run/qemu").mkdir(parents=True)
    path = tmp_path / "run/qemu/web.xml"
    path.write_text(text, encoding="utf-8")
    assert read_status(path) is None
    put_stand_ins(tmp_path)


def test_whatever_monitors_say_the_start_goes_on(short_folder: Callable[[], Path]) -> None:
    root = short_folder()
    (root / "run/qemu").mkdir(parents=True)
    agreed = GREETING + b'{"return": {}}\n'
    said = [b"", b"", b"hello\n", GREETING, agreed + b'{"return": 1}\n', b"[" * 500_000 + b"\n",
            agreed + b'{"event": "RESET"}\n' * 60_000, b"x" * (2 << 20)]  # fmt: skip
    with ExitStack() as open_sockets:
        for number, data in enumerate(said):
            path = root / str(number)
            status = STATUS.format(monitor=path)
            (root / f"run/qemu/{number}.xml").write_text(status, encoding="utf-8")
            listener = open_sockets.enter_context(socket.socket(socket.AF_UNIX))
            listener.bind(str(path))
            listener.listen()
            Thread(target=say, args=(listener, data), daemon=True).start()
        (root / "run/qemu/dead.xml").write_text(STATUS.format(monitor=root / "none"))
        began = time.monotonic()
        put_stand_ins(root)
        assert time.monotonic() - began < 4


def say(listener: socket.socket, data: bytes) -> None:
    """Speaks to one client, and then says no more until it goes."""
    client, _ = listener.accept()
    with client, suppress(OSError):
        client.sendall(data)
        while client.recv(1 << 16):
            pass
