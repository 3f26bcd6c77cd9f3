"""Disks and interfaces of a domain as parts of a specification; None for what it cannot say.

Foreign disks are volumes: they outlive the instance, as the service did not make them.
"""

from collections.abc import Callable, Mapping

from virtrpc.v1 import spec_pb2 as pb

from backends.adoption import made_id
from backends.libvirt.attached_disks import BUSES, DEVICE_TYPES, FORMATS
from backends.libvirt.instances import pci_address
from backends.libvirt.xml.disk import Disk
from backends.libvirt.xml.element import Node
from backends.libvirt.xml.interface import Interface

_MACVTAP_MODES = {
    "bridge": pb.MACVTAP_MODE_BRIDGE,
    "vepa": pb.MACVTAP_MODE_VEPA,
    "private": pb.MACVTAP_MODE_PRIVATE,
    "passthrough": pb.MACVTAP_MODE_PASSTHROUGH,
}


def block_device(instance_id: str, node: Node) -> pb.BlockDevice | None:
    """A <disk> in a file or on a block device of this host."""
    disk = Disk.from_xml(node)
    volume = _volume(instance_id, disk)
    if volume is None or disk.bus not in BUSES or (disk.device or "disk") not in DEVICE_TYPES:
        return None
    device = pb.BlockDevice(
        device_name=disk.target or "",
        bus=BUSES[disk.bus],
        device_type=DEVICE_TYPES[disk.device or "disk"],
        volume=volume,
    )
    if disk.boot_order is not None:
        device.boot_index = disk.boot_order - 1
    return device


def _volume(instance_id: str, disk: Disk) -> pb.VolumeConnection | None:
    path = disk.source_file or disk.source_device
    if path is None:
        return None
    volume = pb.VolumeConnection(
        volume_id=made_id(instance_id, path),
        read_only=disk.read_only,
        discard=disk.discard == "unmap",
    )
    if disk.source_device is not None:
        volume.local_block.path = path
    elif (disk.format or "raw") in FORMATS:
        volume.local_file.path, volume.local_file.format = path, FORMATS[disk.format or "raw"]
    else:
        return None
    return volume


def interface_spec(instance_id: str, node: Node) -> pb.InterfaceSpec | None:
    """An <interface> of a kind that a specification has."""
    interface = Interface.from_xml(node)
    connect = _NETWORKS.get(interface.type or "")
    nowhere = interface.type == "hostdev" and interface.source_address is None
    if connect is None or not interface.mac or nowhere:
        return None
    spec = pb.InterfaceSpec(
        port_id=made_id(instance_id, interface.mac),
        mac_address=interface.mac,
        model=interface.model or "",
        mtu=interface.mtu or 0,
        link_down=interface.link == "down",
        # Nobody has held it to its addresses so far, and its tap has a name of libvirt's.
        port_security_disabled=interface.type != "user",
    )
    connect(spec, node)
    return spec


def _attribute(node: Node, path: str, name: str) -> str:
    found = node.find(path)
    return "" if found is None else found.get(name, "")


def _user(spec: pb.InterfaceSpec, _node: Node) -> None:
    spec.user.SetInParent()


def _bridge(spec: pb.InterfaceSpec, node: Node) -> None:
    bridge = _attribute(node, "source", "bridge")
    if _attribute(node, "virtualport", "type") == "openvswitch":
        spec.open_vswitch.bridge = bridge
        spec.open_vswitch.interface_id = _attribute(node, "virtualport/parameters", "interfaceid")
    else:
        spec.bridge.bridge = bridge


def _network(spec: pb.InterfaceSpec, node: Node) -> None:
    spec.libvirt_network.network = _attribute(node, "source", "network")
    spec.libvirt_network.portgroup = _attribute(node, "source", "portgroup")


def _macvtap(spec: pb.InterfaceSpec, node: Node) -> None:
    spec.macvtap.device = _attribute(node, "source", "dev")
    mode = _attribute(node, "source", "mode")
    spec.macvtap.mode = _MACVTAP_MODES.get(mode, pb.MACVTAP_MODE_UNSPECIFIED)


def _tap(spec: pb.InterfaceSpec, node: Node) -> None:
    spec.tap.device = _attribute(node, "target", "dev")
    spec.tap.managed_by_caller = _attribute(node, "target", "managed") == "no"


def _vhost_user(spec: pb.InterfaceSpec, node: Node) -> None:
    spec.vhost_user.socket_path = _attribute(node, "source", "path")
    spec.vhost_user.server = _attribute(node, "source", "mode") == "server"


def _host_device(spec: pb.InterfaceSpec, node: Node) -> None:
    address = Interface.from_xml(node).source_address
    if address is not None:
        spec.host_device.pci_address = pci_address(address)
    spec.host_device.vlan = int(_attribute(node, "vlan/tag", "id") or 0)


_NETWORKS: Mapping[str, Callable[[pb.InterfaceSpec, Node], None]] = {
    "user": _user,
    "bridge": _bridge,
    "network": _network,
    "direct": _macvtap,
    "ethernet": _tap,
    "vhostuser": _vhost_user,
    "hostdev": _host_device,
}
