"""A guest with a network and a volume goes to another host; who talks to it notices nothing."""

import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

import pytest
from virtrpc.v1 import firewall_pb2, volume_pb2
from virtrpc.v1.spec_pb2 import BlockDevice, BridgeNetwork, InterfaceSpec, VolumeConnection

from tests.guest_shell import GuestShell
from tests.instances import console_until, destroyed, spawned
from tests.lab import talk
from tests.lab.guests import TIMEOUT_S, counting_spec, goes_on, is_clean, location
from tests.lab.hosts import Lab, LabHost
from tests.lab.network import BRIDGE
from tests.migrations import instance_at, live_request, migrated

pytestmark = pytest.mark.timeout(180)
ADDRESS, PORT = "192.0.2.9", 7000
GROUP = "11111111-0000-4000-8000-000000000007"
VOLUME = "22222222-0000-4000-8000-000000000007"


@pytest.fixture(scope="module")
def guest(two_hosts: Lab) -> Iterator[str]:
    """A guest on the bridge that echoes what it is told by TCP, and has a volume."""
    here, there = two_hosts.hosts
    give_group(here)
    spec = counting_spec("connected")
    spec.interfaces.append(
        InterfaceSpec(
            port_id=str(uuid.uuid4()),
            bridge=BridgeNetwork(bridge=BRIDGE),
            addresses=[f"{ADDRESS}/24"],
            security_group_ids=[GROUP],
        )
    )
    with spawned(here.connection, spec) as instance_id:
        try:
            console_until(here.connection, instance_id, b":~# ")  # a shell reads what is typed
            attach_volume(two_hosts, instance_id)
            shell = GuestShell(here.connection, instance_id)
            shell.run(f"ip addr add {ADDRESS}/24 dev eth0")
            shell.run(f"(nc -ll -p {PORT} -e cat </dev/null >/dev/null 2>&1 &)")
            shell.close()
            yield instance_id
        finally:
            destroyed(there.connection, instance_id)


def give_group(host: LabHost) -> None:
    rule = firewall_pb2.SecurityGroupRule(
        direction=firewall_pb2.TRAFFIC_DIRECTION_INGRESS, tcp=firewall_pb2.PortRange(first=PORT)
    )
    group = firewall_pb2.SecurityGroup(security_group_id=GROUP, rules=[rule])
    request = firewall_pb2.RefreshSecurityGroupRequest(security_group=group)
    host.connection.firewall.RefreshSecurityGroup(request, timeout=TIMEOUT_S)


def attach_volume(lab: Lab, instance_id: str) -> None:
    path = lab.volumes / "volume.raw"
    path.write_bytes(bytes(1 << 20))
    path.chmod(0o666)
    volume = VolumeConnection(volume_id=VOLUME)
    volume.local_file.path = str(path)
    request = volume_pb2.AttachVolumeRequest(
        instance_id=instance_id, device=BlockDevice(volume=volume)
    )
    lab.hosts[0].connection.volumes.AttachVolume(request, timeout=TIMEOUT_S)


@contextmanager
def talking(host: LabHost) -> Iterator[IO[str]]:
    """What a client on a host's bridge prints, which has one connection to the guest."""
    program = (sys.executable, str(talk.__file__), ADDRESS, str(PORT))
    with subprocess.Popen(
        [*host.libvirtd.inside, *program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        encoding="ascii",
    ) as client:
        assert client.stdin is not None
        assert client.stdout is not None
        yield client.stdout
        client.stdin.close()
        assert client.wait(TIMEOUT_S) == 0


def links(host: LabHost) -> str:
    command = [*host.libvirtd.inside, "ip", "-o", "link"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def rules(host: LabHost) -> str:
    command = [*host.libvirtd.inside, "nft", "-t", "list", "ruleset"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_connection_and_volume_survive_there_and_back(two_hosts: Lab, guest: str) -> None:
    """From the host that the guest leaves, and from the one that it comes to."""
    for _ in range(2):
        here, there = location(two_hosts, guest)
        known = instance_at(here, guest)
        assert known is not None
        (interface,) = known.effective.interfaces
        with talking(here) as near, talking(there) as far:
            near.readline()
            far.readline()
            migrated(here, live_request(guest, there))
            for client in (near, far):
                last = int(client.readline())
                while int(client.readline()) < last + 40:
                    pass
        goes_on(there, guest)
        is_clean(here, guest)
        arrived = instance_at(there, guest)
        assert arrived is not None
        assert arrived.spec == known.spec
        assert arrived.effective.interfaces == known.effective.interfaces
        assert [d.source for d in arrived.effective.disks if d.volume_id] == [
            str(two_hosts.volumes / "volume.raw")
        ]
        assert interface.host_device not in links(here)
        assert interface.host_device in links(there)
        assert interface.host_device not in rules(here)
        assert f"to-{interface.host_device}" in rules(there)
