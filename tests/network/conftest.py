"""A daemon in a network namespace, and two guests on its bridge."""

import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from virtrpc.v1 import firewall_pb2, instance_pb2
from virtrpc.v1.spec_pb2 import BridgeNetwork, InterfaceSpec

from tests.daemon import Connection, DaemonProcess
from tests.images import place_guest_images
from tests.instances import TIMEOUT_S, console_until, destroyed, small_spec, succeeded
from tests.network.lan import BRIDGE, Lan
from tests.network.shell import Shell

GROUP = "11111111-0000-4000-8000-000000000001"


@dataclass(frozen=True)
class Host:
    """A guest, its address, and its console."""

    instance_id: str
    interface: InterfaceSpec
    shell: Shell

    @property
    def tap(self) -> str:
        return f"tap{self.interface.port_id[:11]}"

    @property
    def ip(self) -> str:
        return self.interface.addresses[0].partition("/")[0]


@pytest.fixture(scope="session")
def lan() -> Iterator[Lan]:
    made = Lan()
    yield made
    made.close()


@pytest.fixture(scope="session")
def lan_daemon(lan: Lan, short_folder: Callable[[], Path]) -> Iterator[DaemonProcess]:
    """A daemon whose machines are on the bridge."""
    program = (*lan.inside, sys.executable, "-m", "service.main")
    with DaemonProcess(short_folder(), backend="libvirt", program=program) as daemon:
        place_guest_images(daemon.image_dir)
        yield daemon.start()


@pytest.fixture
def lan_connection(lan_daemon: DaemonProcess) -> Iterator[Connection]:
    with lan_daemon.connect() as connected:
        yield connected


def bridged(number: int) -> InterfaceSpec:
    """The interface of the guest of a number."""
    return InterfaceSpec(
        port_id=f"{number:08x}-1111-4000-8000-000000000000",
        mac_address=f"52:54:00:00:01:{number:02x}",
        bridge=BridgeNetwork(bridge=BRIDGE),
        addresses=[f"192.0.2.{number}/24"],
        security_group_ids=[GROUP],
    )


@pytest.fixture(scope="session")
def pair(lan: Lan, lan_daemon: DaemonProcess) -> Iterator[tuple[Host, Host]]:
    """Two guests that know each other's addresses; they are in GROUP.

    When they go, nothing of them is left on the host.
    """
    devices = set(lan.links())
    with lan_daemon.connect() as connection:
        begun = []
        for number in (1, 2):
            spec = small_spec(backend="libvirt")
            spec.interfaces.append(bridged(number))
            request = instance_pb2.SpawnInstanceRequest(instance_id=str(uuid.uuid4()), spec=spec)
            operation = connection.instances.SpawnInstance(request, timeout=TIMEOUT_S)
            begun.append((request.instance_id, spec.interfaces[0], operation))
        hosts = []
        try:
            for instance_id, interface, operation in begun:
                succeeded(connection, operation)
                console_until(connection, instance_id, b"virtrpc guest ready")
                hosts.append(Host(instance_id, interface, Shell(connection, instance_id)))
            for one, other in (hosts, hosts[::-1]):
                address, other_mac = one.interface.addresses[0], other.interface.mac_address
                assert one.shell.run(f"ip addr add {address} dev eth0")
                assert one.shell.run(f"arp -s {other.ip} {other_mac}")
            yield hosts[0], hosts[1]
        finally:
            for host in hosts:
                host.shell.close()
            for instance_id, _, _ in begun:
                destroyed(connection, instance_id)
    assert set(lan.links()) == devices
    assert lan.table() == ""
    assert not list((lan_daemon.state_dir / "firewall/instances").iterdir())


def give(connection: Connection, *rules: firewall_pb2.SecurityGroupRule) -> list[str]:
    """Gives GROUP its rules; the instances that this concerns."""
    group = firewall_pb2.SecurityGroup(security_group_id=GROUP, rules=rules)
    request = firewall_pb2.RefreshSecurityGroupRequest(security_group=group)
    reply = connection.firewall.RefreshSecurityGroup(request, timeout=TIMEOUT_S)
    return list(reply.instance_ids)
