"""Interfaces of a specification: their addresses and devices, and what is wrong with them."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv6Interface, ip_address, ip_interface

from virtrpc.v1 import spec_pb2
from virtrpc.v1.spec_pb2 import InstanceSpec, InterfaceSpec

from backends.errors import ContractError, InvalidArgumentError, UnsupportedError

MAC_PREFIX = "52"  # locally administered: the first byte's second bit (IEEE 802, section 8.2)
DEFAULT_MODEL = "virtio"
_MODELS = ("virtio", "e1000", "e1000e", "ne2k_pci", "pcnet", "rtl8139", "vmxnet3")
_LEAST_MTU, _LEAST_MTU_IPV6 = 68, 1280  # RFC 791, RFC 8200
# Names that begin so libvirt chooses itself, and forgets when they are asked for.
_NAMES_OF_LIBVIRT = ("vnet", "vif", "macvtap", "macvlan")


@dataclass(frozen=True, kw_only=True)
class NetworkKind:
    """What interfaces to a kind of network can have."""

    mtu: bool = False
    queues: bool = False
    qos: bool = False
    filtered: bool = False
    """Their packets cross a bridge of the host, where they can be looked at."""
    isolated: bool = False
    """Nothing that the guest claims to be leaves its machine."""


_KINDS: Mapping[str, NetworkKind] = {
    "user": NetworkKind(isolated=True),
    "bridge": NetworkKind(mtu=True, queues=True, qos=True, filtered=True),
    "libvirt_network": NetworkKind(mtu=True, queues=True, qos=True, filtered=True),
    "open_vswitch": NetworkKind(mtu=True, queues=True, qos=True),
    "macvtap": NetworkKind(queues=True, qos=True),
    "tap": NetworkKind(mtu=True, queues=True, qos=True),
    "vhost_user": NetworkKind(mtu=True, queues=True),
    "host_device": NetworkKind(),
}


def kind_of(interface: InterfaceSpec) -> NetworkKind:
    """What an interface can have."""
    return _KINDS[interface.WhichOneof("network") or "user"]


def mac_address(instance_id: str, interface: InterfaceSpec) -> str:
    """The address that is asked for, or one that is the same whenever it is made."""
    if interface.mac_address:
        return interface.mac_address
    digest = hashlib.sha256(f"{instance_id}/{interface.port_id}".encode()).hexdigest()
    return ":".join((MAC_PREFIX, *(digest[at : at + 2] for at in range(0, 10, 2))))


def with_mac(instance_id: str, interface: InterfaceSpec) -> InterfaceSpec:
    """A copy that says its MAC address."""
    told = InterfaceSpec()
    told.CopyFrom(interface)
    told.mac_address = mac_address(instance_id, interface)
    return told


def host_device(interface: InterfaceSpec) -> str:
    """What of the host an interface has to itself: the name of its tap, or a PCI address.

    The name is Neutron's, by which its agents know the tap of a port; empty: none.
    """
    match interface.WhichOneof("network"):
        case "host_device":
            return interface.host_device.pci_address
        case "tap" if interface.tap.device:
            return interface.tap.device
        case "bridge" | "libvirt_network" | "open_vswitch" | "macvtap" | "tap":
            return f"tap{interface.port_id[:11]}"
    return ""


def own_addresses(interface: InterfaceSpec) -> list[IPv4Interface | IPv6Interface]:
    """The addresses of an interface."""
    return [ip_interface(address) for address in interface.addresses]


def interface_errors(spec: InstanceSpec) -> Iterator[ContractError]:
    """Everything that is wrong with the interfaces of a specification on any host."""
    yield from list_errors(spec.interfaces, "spec.interfaces")


def list_errors(interfaces: Sequence[InterfaceSpec], field: str) -> Iterator[ContractError]:
    """As `interface_errors`; `field` is the path of the list."""
    for name, reason in (("port_id", "PORT_TAKEN"), ("mac_address", "MAC_ADDRESS_TAKEN")):
        yield from _twice([getattr(i, name) for i in interfaces], field, name, reason)
    taken = [host_device(interface) for interface in interfaces]
    ports = [interface.port_id for interface in interfaces]
    if len(set(ports)) == len(ports):  # or else the same port is the reason
        yield from _twice(taken, field, "", "HOST_DEVICE_TAKEN")
    for index, interface in enumerate(interfaces):
        yield from errors_of(interface, f"{field}[{index}]")


def errors_of(interface: InterfaceSpec, field: str) -> Iterator[ContractError]:
    """What is wrong with one interface by itself; `field` is its path."""
    if interface.mac_address and not int(interface.mac_address.replace(":", ""), 16):
        yield InvalidArgumentError("not an address of anything", field=f"{field}.mac_address")
    yield from _model_errors(interface, field)
    yield from _network_errors(interface, field)
    yield from _mtu_errors(interface, field)
    yield from _qos_errors(interface, field)
    yield from _address_errors(interface, field)
    yield from _beyond_its_kind(interface, field)


def _twice(values: Sequence[str], field: str, name: str, reason: str) -> Iterator[ContractError]:
    seen: set[str] = set()
    for index, value in enumerate(values):
        if value in seen:
            path = f"{field}[{index}]" + (f".{name}" if name else "")
            why = f"another interface has the {name or 'host device'} {value}"
            yield InvalidArgumentError(why, field=path, reason=reason)
        seen |= {value} - {""}


def _model_errors(interface: InterfaceSpec, field: str) -> Iterator[ContractError]:
    model, at = interface.model or DEFAULT_MODEL, f"{field}.model"
    if interface.HasField("host_device") and interface.model:
        yield InvalidArgumentError("a host device is what it is", field=at)
    elif interface.HasField("vhost_user") and model != DEFAULT_MODEL:
        yield InvalidArgumentError("vhost-user speaks virtio alone", field=at)
    elif model not in _MODELS:
        why = f"not a model: {', '.join(_MODELS)}"
        yield InvalidArgumentError(why, field=at, reason="MODEL_UNKNOWN")
    if interface.queues > 1 and model != DEFAULT_MODEL:
        yield InvalidArgumentError("virtio alone has queues", field=f"{field}.queues")


def _network_errors(interface: InterfaceSpec, field: str) -> Iterator[ContractError]:
    tap, path = interface.tap, interface.vhost_user.socket_path
    if tap.managed_by_caller and not tap.device:
        yield InvalidArgumentError("which device is meant?", field=f"{field}.tap.device")
    if not tap.managed_by_caller and tap.device.startswith(_NAMES_OF_LIBVIRT):
        why = f"names in {', '.join(_NAMES_OF_LIBVIRT)}… are the hypervisor's own"
        yield InvalidArgumentError(why, field=f"{field}.tap.device")
    if ".." in path.split("/"):
        yield InvalidArgumentError("leads elsewhere", field=f"{field}.vhost_user.socket_path")


def _mtu_errors(interface: InterfaceSpec, field: str) -> Iterator[ContractError]:
    six = any(address.version == 6 for address in own_addresses(interface))
    least = _LEAST_MTU_IPV6 if six else _LEAST_MTU
    if interface.mtu and interface.mtu < least:
        yield InvalidArgumentError(f"the least MTU is {least}", field=f"{field}.mtu")


def _qos_errors(interface: InterfaceSpec, field: str) -> Iterator[ContractError]:
    qos = interface.qos
    for way in ("inbound", "outbound"):
        average = getattr(qos, f"{way}_average_kib_per_s")
        peak, burst = getattr(qos, f"{way}_peak_kib_per_s"), getattr(qos, f"{way}_burst_kib")
        at = f"{field}.qos.{way}_average_kib_per_s"
        if (peak or burst) and not average:
            yield InvalidArgumentError("peak and burst go with an average", field=at)
        elif peak and peak < average:
            yield InvalidArgumentError("above the peak", field=at)


def _address_errors(interface: InterfaceSpec, field: str) -> Iterator[ContractError]:
    addresses = own_addresses(interface)
    for index, address in enumerate(addresses):
        at, ip = f"{field}.addresses[{index}]", address.ip
        if ip.is_multicast or ip.is_unspecified or ip.is_loopback:
            yield InvalidArgumentError(f"{ip} is no address of an interface", field=at)
        if ip in [earlier.ip for earlier in addresses[:index]]:
            yield InvalidArgumentError(f"{ip} is given twice", field=at)
    versions = [ip_address(gateway).version for gateway in interface.gateways]
    for index, version in enumerate(versions):
        if version in versions[:index]:
            at = f"{field}.gateways[{index}]"
            yield InvalidArgumentError(f"a second gateway for IPv{version}", field=at)


def _beyond_its_kind(interface: InterfaceSpec, field: str) -> Iterator[ContractError]:
    """What its kind of network has not: promised to nobody rather than passed over."""
    kind, network = kind_of(interface), interface.WhichOneof("network")
    asked = {
        "mtu": ("interface_mtu", kind.mtu, interface.mtu),
        "queues": ("interface_queues", kind.queues, interface.queues > 1),
        "qos": ("interface_qos", kind.qos, interface.HasField("qos")),
        "security_group_ids": ("security_groups", kind.filtered, interface.security_group_ids),
    }
    for name, (capability, has, wanted) in asked.items():
        if wanted and not has:
            why = f"an interface of the kind {network} has none"
            yield UnsupportedError(capability, why=why, field=f"{field}.{name}")
    if not (kind.filtered or kind.isolated or interface.port_security_disabled):
        yield UnsupportedError(
            "anti_spoofing",
            why=f"nobody on the host sees what an interface of the kind {network} sends:"
            " say port_security_disabled",
            field=f"{field}.port_security_disabled",
        )


def qos_pairs(qos: spec_pb2.InterfaceQos) -> dict[str, tuple[int, int, int]]:
    """Average, peak and burst of each way in which there is a limit."""
    limits = {
        "inbound": (
            qos.inbound_average_kib_per_s, qos.inbound_peak_kib_per_s, qos.inbound_burst_kib
        ),
        "outbound": (
            qos.outbound_average_kib_per_s, qos.outbound_peak_kib_per_s, qos.outbound_burst_kib
        ),
    }  # fmt: skip
    return {way: limit for way, limit in limits.items() if limit[0]}
