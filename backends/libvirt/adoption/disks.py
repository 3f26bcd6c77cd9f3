"""Disks and interfaces of a domain as parts of a specification; None for what it cannot say.

Foreign disks are volumes: they outlive the instance, as the service did not make them. One
whose key or password libvirt keeps for somebody else cannot be said; its attachment can.
"""

from collections.abc import Callable, Mapping

from virtrpc.v1 import spec_pb2 as pb

from backends.adoption import made_id
from backends.libvirt.attached_disks import BUSES, DEVICE_TYPES, FORMATS, disk_source, read_disk
from backends.libvirt.instances import pci_address
from backends.libvirt.xml.disk import Disk
from backends.libvirt.xml.element import Node
from backends.libvirt.xml.interface import Interface
from backends.volumes.source_uri import connection_of

_MACVTAP_MODES = {
    "bridge": pb.MACVTAP_MODE_BRIDGE,
    "vepa": pb.MACVTAP_MODE_VEPA,
    "private": pb.MACVTAP_MODE_PRIVATE,
    "passthrough": pb.MACVTAP_MODE_PASSTHROUGH,
}


def block_device(instance_id: str, node: Node) -> pb.BlockDevice | None:
    """A <disk> whose bytes are on this host or a server."""
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
    source, file_format = disk_source(disk), FORMATS.get(disk.format or "raw")
    if not source or file_format is None or disk.auth or disk.encryption:
        return None
    volume_id = read_disk(disk).volume_id or made_id(instance_id, source)
    if disk.protocol == "rbd":
        volume = _rados(disk, volume_id)
    else:
        volume = connection_of(source, volume_id=volume_id, file_format=file_format)
    if volume is not None:
        volume.read_only, volume.discard = disk.read_only, disk.discard == "unmap"
        volume.multi_attach = disk.shareable
    if disk.protocol == "nbd" and volume is not None:
        volume.nbd.tls = disk.tls == "yes"
    return volume


def _rados(disk: Disk, volume_id: str) -> pb.VolumeConnection | None:
    """Without monitors it is found by a file of the host's, which no specification names."""
    volume = pb.VolumeConnection(volume_id=volume_id)
    pool, _, volume.rbd.image = (disk.source_name or "").partition("/")
    volume.rbd.pool = pool
    for host in disk.hosts:
        name = f"[{host.name}]" if ":" in (host.name or "") else host.name or ""
        volume.rbd.monitors.append(f"{name}:{host.port}" if host.port else name)
    return volume if volume.rbd.monitors else None


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
