"""Network interfaces of a domain."""

from collections.abc import Callable, Mapping

from virtrpc.v1 import spec_pb2
from virtrpc.v1.spec_pb2 import InterfaceSpec

from backends.libvirt.instances import ALIAS_PREFIX
from backends.libvirt.xml.domain import Domain
from backends.libvirt.xml.interface import Inbound, Interface, Outbound, PciAddress
from backends.plan import InstancePlan
from backends.plan.interfaces import DEFAULT_MODEL, host_device, mac_address, qos_pairs

_MACVTAP_MODES: Mapping[int, str] = {
    spec_pb2.MACVTAP_MODE_UNSPECIFIED: "bridge",
    spec_pb2.MACVTAP_MODE_BRIDGE: "bridge",
    spec_pb2.MACVTAP_MODE_VEPA: "vepa",
    spec_pb2.MACVTAP_MODE_PRIVATE: "private",
    spec_pb2.MACVTAP_MODE_PASSTHROUGH: "passthrough",
}


def add_interfaces(domain: Domain, plan: InstancePlan) -> None:
    """Puts the interfaces of an instance into a domain, as the guest is to see them."""
    specs = plan.spec.interfaces
    domain.interfaces = [planned_interface(plan.instance_id, spec) for spec in specs]
    if any(spec.HasField("vhost_user") for spec in specs):
        # The switch reads and writes packets in the guest's memory.
        domain.memory_source, domain.memory_access = "memfd", "shared"


def planned_interface(instance_id: str, spec: InterfaceSpec) -> Interface:
    """One interface, whether it comes with its domain or is plugged in later."""
    interface = Interface(
        mac=mac_address(instance_id, spec),
        model=None if spec.HasField("host_device") else spec.model or DEFAULT_MODEL,
        queues=spec.queues if spec.queues > 1 else None,
        mtu=spec.mtu or None,
        link="down" if spec.link_down else None,
        alias=interface_alias(spec.port_id),
    )
    _NETWORKS[spec.WhichOneof("network") or "user"](interface, spec)
    limits = qos_pairs(spec.qos)
    if "inbound" in limits:
        interface.inbound = Inbound(*(value or None for value in limits["inbound"]))
    if "outbound" in limits:
        interface.outbound = Outbound(*(value or None for value in limits["outbound"]))
    return interface


def interface_alias(port_id: str) -> str:
    """By which a port's device is known in its domain."""
    return f"{ALIAS_PREFIX}{port_id}"


def _user(interface: Interface, _spec: InterfaceSpec) -> None:
    interface.type = "user"


def _bridge(interface: Interface, spec: InterfaceSpec) -> None:
    interface.type, interface.source_bridge = "bridge", spec.bridge.bridge
    interface.target = host_device(spec)


def _libvirt_network(interface: Interface, spec: InterfaceSpec) -> None:
    interface.type, interface.source_network = "network", spec.libvirt_network.network
    interface.source_portgroup = spec.libvirt_network.portgroup or None
    interface.target = host_device(spec)


def _open_vswitch(interface: Interface, spec: InterfaceSpec) -> None:
    interface.type, interface.source_bridge = "bridge", spec.open_vswitch.bridge
    interface.port_type = "openvswitch"
    interface.port_interface = spec.open_vswitch.interface_id or spec.port_id
    interface.vlan = spec.open_vswitch.vlan or None
    interface.target = host_device(spec)


def _macvtap(interface: Interface, spec: InterfaceSpec) -> None:
    interface.type, interface.source_device = "direct", spec.macvtap.device
    interface.source_mode = _MACVTAP_MODES[spec.macvtap.mode]
    interface.target = host_device(spec)


def _tap(interface: Interface, spec: InterfaceSpec) -> None:
    interface.type, interface.target = "ethernet", host_device(spec)
    interface.target_managed = "no" if spec.tap.managed_by_caller else None


def _vhost_user(interface: Interface, spec: InterfaceSpec) -> None:
    interface.type, interface.source_type = "vhostuser", "unix"
    interface.source_path = spec.vhost_user.socket_path
    interface.source_mode = "server" if spec.vhost_user.server else "client"


def _host_device(interface: Interface, spec: InterfaceSpec) -> None:
    """libvirt takes the function from its driver and gives it back (managed)."""
    domain, bus, rest = spec.host_device.pci_address.split(":")
    slot, function = rest.split(".")
    interface.type, interface.managed = "hostdev", "yes"
    interface.source_address = PciAddress(
        type="pci",
        domain=f"0x{domain}",
        bus=f"0x{bus}",
        slot=f"0x{slot}",
        function=f"0x{function}",
    )
    interface.vlan = spec.host_device.vlan or None


_NETWORKS: Mapping[str, Callable[[Interface, InterfaceSpec], None]] = {
    "user": _user,
    "bridge": _bridge,
    "libvirt_network": _libvirt_network,
    "open_vswitch": _open_vswitch,
    "macvtap": _macvtap,
    "tap": _tap,
    "vhost_user": _vhost_user,
    "host_device": _host_device,
}
