"""Networks of libvirt, bridges of Open vSwitch, macvtap: with a libvirtd of the system.

Open vSwitch runs with its datapath in user space, which needs nothing of the kernel.
"""

import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import libvirt
import pytest
from virtrpc.v1 import host_pb2, instance_pb2
from virtrpc.v1 import interface_pb2 as pb
from virtrpc.v1.spec_pb2 import InterfaceSpec

from backends.libvirt.connection import start_event_loop
from tests.daemon import Connection, DaemonProcess
from tests.images import place_guest_images
from tests.instances import TIMEOUT_S, small_spec, spawned
from tests.libvirtd import LibvirtdHost
from tests.network.lan import BRIDGE, UPLINK, Lan
from tests.open_vswitch import start_open_vswitch
from tests.refusals import refused

pytestmark = pytest.mark.libvirt
_NETWORK = """\
<network>
  <name>{name}</name>
  <forward mode='bridge'/>
  <bridge name='{bridge}'/>
  <portgroup name='web'/>
</network>
"""


@pytest.fixture(scope="module")
def lan() -> Iterator[Lan]:
    """A namespace of its own: the switch leaves devices in it."""
    made = Lan()
    yield made
    made.close()


@pytest.fixture(scope="module")
def host(lan: Lan, short_folder: Callable[[], Path]) -> Iterator[LibvirtdHost]:
    """A libvirtd in the namespace with its networks, and Open vSwitch beside it."""
    folder = short_folder()
    made = LibvirtdHost(folder, network=lan.name)
    try:
        start_open_vswitch(made, folder)
        made.start()
        start_event_loop()
        connection = libvirt.open(made.uri)
        connection.networkDefineXML(_NETWORK.format(name="lab", bridge=BRIDGE)).create()
        connection.networkDefineXML(_NETWORK.format(name="idle", bridge=BRIDGE))
        connection.close()
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def connection(host: LibvirtdHost, short_folder: Callable[[], Path]) -> Iterator[Connection]:
    """A connection to a daemon on that libvirtd."""
    program = (*host.inside, sys.executable, "-m", "service.main")
    arguments = ("--libvirt-uri=qemu:///system",)
    with DaemonProcess(
        short_folder(), backend="libvirt", program=program, arguments=arguments
    ) as daemon:
        place_guest_images(daemon.image_dir)
        with daemon.start().connect() as connected:
            yield connected


def interface(**fields: Any) -> InterfaceSpec:
    return InterfaceSpec(port_id=str(uuid.uuid4()), **fields)


def test_guest_on_networks_of_others(lan: Lan, connection: Connection) -> None:
    reply = connection.hosts.GetCapabilities(host_pb2.GetCapabilitiesRequest(), timeout=TIMEOUT_S)
    supported = {found.name for found in reply.capabilities if found.supported}
    assert {"interface_libvirt_network", "interface_open_vswitch", "anti_spoofing"} <= supported
    before = set(lan.links())
    spec = small_spec(backend="libvirt")
    spec.interfaces.append(
        interface(
            libvirt_network={"network": "lab", "portgroup": "web"}, addresses=["192.0.2.9/24"]
        )
    )
    switch = {"bridge": "ovs0", "vlan": 7}
    spec.interfaces.append(interface(open_vswitch=switch, port_security_disabled=True))
    uplink = {"device": UPLINK}
    spec.interfaces.append(interface(macvtap=uplink, port_security_disabled=True))
    with spawned(connection, spec) as instance_id:
        request = instance_pb2.GetInstanceRequest(instance_id=instance_id, fresh=True)
        machine = connection.instances.GetInstance(request).instance
        asked = machine.persistent.interfaces[0]
        assert (asked.type, asked.source) == ("network", "lab")
        on_network, on_switch, on_uplink = machine.effective.interfaces
        assert (on_network.type, on_network.source) == ("bridge", BRIDGE)
        assert (on_switch.type, on_switch.source) == ("bridge", "ovs0")
        assert (on_uplink.type, on_uplink.source) == ("direct", UPLINK)
        assert lan.links()[on_uplink.host_device]["link"] == UPLINK
        assert lan.links()[on_network.host_device]["master"] == BRIDGE
        assert on_switch.host_device in lan.links()
        assert f"source-{on_network.host_device}" in lan.table()
        assert on_switch.host_device not in lan.table()
    assert set(lan.links()) == before
    assert lan.table() == ""


@pytest.mark.parametrize(
    ("fields", "code", "reason"),
    [
        ({"libvirt_network": {"network": "none"}}, grpc.StatusCode.NOT_FOUND, "NETWORK_NOT_FOUND"),
        ({"libvirt_network": {"network": "idle"}}, grpc.StatusCode.FAILED_PRECONDITION,
         "NETWORK_DOWN"),
        ({"libvirt_network": {"network": "lab", "portgroup": "db"}}, grpc.StatusCode.NOT_FOUND,
         "NETWORK_NOT_FOUND"),
        ({"open_vswitch": {"bridge": "ovs9"}, "port_security_disabled": True},
         grpc.StatusCode.NOT_FOUND, "NETWORK_NOT_FOUND"),
    ],
)  # fmt: skip
def test_networks_that_are_not_there_are_told_apart(
    connection: Connection, fields: dict[str, Any], code: grpc.StatusCode, reason: str
) -> None:
    request = pb.PrepareNetworksRequest(
        instance_id=str(uuid.uuid4()), interfaces=[interface(**fields)]
    )
    with refused(code, reason):
        connection.interfaces.PrepareNetworks(request, timeout=TIMEOUT_S)
