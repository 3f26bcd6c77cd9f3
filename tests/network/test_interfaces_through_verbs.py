"""A filtered interface through all that remakes its machine: packets pass, and others do not."""

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from virtrpc.v1 import instance_pb2

from tests.daemon import Connection, DaemonProcess
from tests.guest_shell import GuestShell
from tests.instances import TIMEOUT_S, console_until, destroyed, small_spec, succeeded
from tests.network.conftest import Host, bridged, give
from tests.network.lan import Lan
from tests.network.shell import Shell
from tests.network.test_between_guests import ANY_OUT, PING, ping
from tests.remaking import REMAKING, booted_by, called

pytestmark = [pytest.mark.libvirt, pytest.mark.long, pytest.mark.timeout(300)]
_NUMBER, _SPOOFED = 3, "192.0.2.99"


@dataclass
class Remade:
    """The third guest, which is made anew and anew, and one that it talks to."""

    connection: Connection
    instance_id: str
    peer: Host

    def call(self, verb: str, **fields: Any) -> None:
        """Calls a verb, which succeeds."""
        called(self.connection, self.instance_id, verb, **fields)

    def boots(self, verb: str, **fields: Any) -> None:
        """Calls a verb after which the guest starts anew, and gives it its address."""
        booted_by(self.connection, self.instance_id, verb, **fields)
        self.introduce()

    def introduce(self) -> None:
        """It has its address again, and knows its peer's."""
        GuestShell(self.connection, self.instance_id).close()  # its shell reads
        shell = Shell(self.connection, self.instance_id)
        interface = bridged(_NUMBER)
        mac = self.peer.interface.mac_address
        assert shell.run(f"ip addr add {interface.addresses[0]} dev eth0")
        assert shell.run(f"arp -s {self.peer.ip} {mac}")
        shell.close()

    def is_filtered(self) -> None:
        """What the group allows passes, what it does not stops, and nobody is somebody else."""
        me = Host(self.instance_id, bridged(_NUMBER), Shell(self.connection, self.instance_id))
        assert ping(self.peer, me)
        assert ping(me, self.peer)
        assert me.shell.run(f"ip addr add {_SPOOFED}/24 dev eth0")
        assert not ping(me, self.peer, "-I", _SPOOFED)
        assert me.shell.run(f"ip addr del {_SPOOFED}/24 dev eth0")
        give(self.connection, ANY_OUT)
        assert not ping(self.peer, me)
        give(self.connection, ANY_OUT, PING)
        me.shell.close()


@pytest.fixture(scope="module")
def remade(lan: Lan, lan_daemon: DaemonProcess, pair: tuple[Host, Host]) -> Iterator[Remade]:
    spec = small_spec(backend="libvirt", boot="disk")
    spec.interfaces.append(bridged(_NUMBER))
    request = instance_pb2.SpawnInstanceRequest(instance_id=str(uuid.uuid4()), spec=spec)
    before = set(lan.links())
    with lan_daemon.connect() as connection:
        operation = connection.instances.SpawnInstance(request, timeout=TIMEOUT_S)
        try:
            succeeded(connection, operation)
            console_until(connection, request.instance_id, b"virtrpc guest ready")
            made = Remade(connection, request.instance_id, pair[0])
            give(connection, ANY_OUT, PING)
            made.introduce()
            peer = pair[0].shell
            assert peer.run(f"arp -s 192.0.2.{_NUMBER} {spec.interfaces[0].mac_address}")
            yield made
        finally:
            destroyed(connection, request.instance_id)
        assert set(lan.links()) == before
        assert f"tap{spec.interfaces[0].port_id[:11]}" not in lan.table()


def test_suspended_and_resumed(remade: Remade) -> None:
    remade.call("SuspendInstance")
    remade.call("ResumeInstance")
    remade.is_filtered()


def test_an_image_is_taken(remade: Remade) -> None:
    remade.call("SnapshotInstance", image_id=f"snapshot-{uuid.uuid4()}")
    remade.is_filtered()


def test_deleted_softly_and_restored(remade: Remade) -> None:
    remade.call("SoftDeleteInstance")
    remade.boots("RestoreInstance")
    remade.is_filtered()


@pytest.mark.parametrize("verb", REMAKING)
def test_started_anew(remade: Remade, verb: str) -> None:
    remade.boots(verb, **REMAKING[verb])
    remade.is_filtered()
