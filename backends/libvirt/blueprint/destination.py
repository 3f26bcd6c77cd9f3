"""A domain as it is to be at another host: the same machine over other files and networks.

Source: libvirt's "Guest migration", VIR_MIGRATE_PARAM_DEST_XML and _PERSIST_XML: what the
guest sees must stay, what of the host is behind it and metadata may change.
"""

from collections.abc import Iterable

from virtrpc.v1.migration_pb2 import MigrationData, MigrationDisk
from virtrpc.v1.spec_pb2 import InterfaceSpec

from backends.libvirt.attached_disks import read_disk
from backends.libvirt.blueprint.interfaces import interface_alias, planned_interface
from backends.libvirt.blueprint.volumes import LocatedVolume, add_source
from backends.libvirt.xml import metadata
from backends.libvirt.xml.disk import Disk
from backends.libvirt.xml.element import Node, parse, to_text
from backends.volumes.source_uri import connection_of

_TEXTS = {"kernel": "os/kernel", "ramdisk": "os/initrd", "nvram": "os/nvram"}
# What of an interface is its host's; the guest sees the rest.
_OF_THE_HOST = ("source", "virtualport", "vlan", "target", "bandwidth")
_KEPT_IN_SOURCE = ("auth", "encryption", "reservations")


def destination_xml(document: str, data: MigrationData) -> str:
    """A domain's XML as the destination has prepared for it, marked with the migration."""
    node = parse(document)
    disks = {disk.device_name: disk for disk in data.disks}
    for disk in node.iterfind("devices/disk"):
        target = disk.find("target")
        at = disks.get("" if target is None else target.get("dev", ""))
        if at is not None:
            _move_disk(disk, at, data.iscsi_initiator)
    _move_files(node, data)
    own = metadata.find_in(node)
    if own is not None:
        _move_interfaces(node, data, own.spec.interfaces)
        del own.spec.interfaces[:]
        own.spec.interfaces.extend(data.interfaces)
        own.migration_id = data.migration_id
        metadata.put_into(node, own)
    return to_text(node)


def _move_files(node: Node, data: MigrationData) -> None:
    files = {file.role: file.path for file in data.files}
    for role, place in _TEXTS.items():
        found = node.find(place)
        if found is not None and role in files:
            found.text = files[role]
    for log in (*node.iterfind("devices/serial/log"), *node.iterfind("devices/console/log")):
        log.set("file", files.get("console", log.get("file", "")))


def _move_disk(node: Node, at: MigrationDisk, initiator: str) -> None:
    source = node.find("source")
    if source is None or not at.destination_source:
        return
    if not at.volume_id:
        _point(node, at.destination_source)
        return
    known = Disk.from_xml(node)
    volume = connection_of(at.destination_source, volume_id=at.volume_id, file_format=at.format)
    if volume is not None and read_disk(known).source != at.destination_source:
        _replace_source(node, LocatedVolume(volume=volume), initiator)
    named = source.find("initiator/iqn")
    if initiator and named is not None:
        named.set("name", initiator)


def _point(disk: Node, path: str) -> None:
    """Another file under a disk; what libvirt knew of the old one goes."""
    source = disk.find("source")
    if source is not None and source.get("file") is not None:
        source.set("file", path)
        if "index" in source.attrib:
            del source.attrib["index"]
    for tag in ("backingStore", "mirror"):
        for child in disk.findall(tag):
            disk.remove(child)


def _replace_source(node: Node, located: LocatedVolume, initiator: str) -> None:
    """Other storage under a volume's disk; keys are named as they were."""
    made = Disk()
    add_source(made, located, initiator)
    fresh = made.to_xml().find("source")
    former = node.find("source")
    assert fresh is not None  # noqa: S101
    assert former is not None  # noqa: S101
    fresh.extend(child for tag in _KEPT_IN_SOURCE for child in former.findall(tag))
    node.set("type", made.type or "")
    node.replace(former, fresh)
    for chain in node.findall("backingStore"):
        node.remove(chain)


def _move_interfaces(node: Node, data: MigrationData, known: Iterable[InterfaceSpec]) -> None:
    """Other networks behind those interfaces that the destination connects otherwise."""
    here = {interface.port_id: interface for interface in known}
    nodes = {_alias(found): found for found in node.iterfind("devices/interface")}
    for interface in data.interfaces:
        found = nodes.get(interface_alias(interface.port_id))
        if found is not None and here.get(interface.port_id) != interface:
            _reconnect(found, planned_interface(data.instance_id, interface).to_xml())


def _reconnect(node: Node, fresh: Node) -> None:
    node.set("type", fresh.get("type", ""))
    mac = node.find("mac")
    at = 0 if mac is None else node.index(mac) + 1
    for tag in _OF_THE_HOST:
        for child in node.findall(tag):
            node.remove(child)
    for child in reversed([c for tag in _OF_THE_HOST for c in fresh.findall(tag)]):
        node.insert(at, child)


def _alias(interface: Node) -> str:
    found = interface.find("alias")
    return "" if found is None else found.get("name", "")
