"""Networks that libvirt or Open vSwitch keeps: whether they are there, and what they can."""

import subprocess
from collections.abc import Iterator

import libvirt
from virtrpc.v1.spec_pb2 import InterfaceSpec

from backends.errors import ContractError, HypervisorError, UnsupportedError
from backends.interfaces.places import network_down, network_missing
from backends.libvirt.domains import Domains
from backends.libvirt.xml.element import Node, parse

_OVS_TIMEOUT_S = 5
_NO_SUCH_BRIDGE = 2  # ovs-vsctl(8), br-exists


def network_errors(
    domains: Domains, interface: InterfaceSpec, field: str
) -> Iterator[ContractError]:
    """What keeps an interface from its network; `field` is the interface's path."""
    if interface.HasField("libvirt_network"):
        yield from _libvirt_errors(domains, interface, field)
    elif interface.HasField("open_vswitch"):
        bridge = interface.open_vswitch.bridge
        if not _has_bridge(bridge):
            yield network_missing(f"Open vSwitch bridge {bridge}", f"{field}.open_vswitch.bridge")


def _libvirt_errors(
    domains: Domains, interface: InterfaceSpec, field: str
) -> Iterator[ContractError]:
    asked, at = interface.libvirt_network, f"{field}.libvirt_network"
    try:
        network = domains.connection.handles.own.networkLookupByName(asked.network)
        active, document = network.isActive(), parse(network.XMLDesc())
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_NO_NETWORK:
            raise domains.failed(error) from error
        yield network_missing(f"network {asked.network}", f"{at}.network")
        return
    if not active:
        yield network_down(asked.network, f"{at}.network")
    groups = [group.get("name") for group in document.iterfind("portgroup")]
    if asked.portgroup and asked.portgroup not in groups:
        yield network_missing(f"port group {asked.portgroup}", f"{at}.portgroup")
    if not _is_on_a_bridge(document) and not interface.port_security_disabled:
        why = f"the packets of {asked.network} cross no bridge of the host"
        yield UnsupportedError("anti_spoofing", why=why, field=f"{field}.port_security_disabled")


def _is_on_a_bridge(network: Node) -> bool:
    """Its interfaces are ports of a bridge of the kernel, whose packets can be filtered."""
    return network.find("bridge") is not None and network.find("virtualport") is None


def _has_bridge(name: str) -> bool:
    try:
        done = subprocess.run(
            ["ovs-vsctl", f"--timeout={_OVS_TIMEOUT_S}", "br-exists", name],
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError as error:
        raise HypervisorError(f"ovs-vsctl cannot be run: {error}") from error
    if done.returncode not in (0, _NO_SUCH_BRIDGE):
        raise HypervisorError(f"ovs-vsctl: {done.stderr.strip()}")
    return done.returncode == 0
