"""What the service writes into a domain that it adopts, and how it is taken out again. Pure.

    its metadata                       at once, in the running domain too
    a log for the first serial port    at the next start
    names of disks, by attachment      at the next start

Whatever else is in the domain stays as it is.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

from lxml import etree
from virtrpc.v1 import host_pb2 as pb
from virtrpc.v1.spec_pb2 import InstanceSpec

from backends.adoption import made_id
from backends.libvirt.attached_disks import (
    VOLUME,
    adopted_alias,
    disk_source,
    former_alias,
    read_disk,
)
from backends.libvirt.xml import metadata
from backends.libvirt.xml.disk import Disk
from backends.libvirt.xml.element import Node

# Namespaces by which other services know their domains.
_OWNERS: Mapping[str, str] = {
    "http://openstack.org/xmlns/libvirt/nova/1.0": "OpenStack Nova",
    "http://openstack.org/xmlns/libvirt/nova/1.1": "OpenStack Nova",
    "http://ovirt.org/vm/1.0": "oVirt",
    "http://ovirt.org/vm/tune/1.0": "oVirt",
    "http://kubevirt.io": "KubeVirt",
    metadata.NAMESPACE: "virtrpc, in a way that is not understood here",
}
_OUR_PORT = "ua-console"


def owner(domain: Node) -> str:
    """Who else has marked the domain as its own; empty: nobody."""
    holder = domain.find("metadata")
    for node in () if holder is None else holder.iterchildren("*"):
        found = _OWNERS.get(etree.QName(node).namespace or "")
        if found:
            return found
    return ""


def logged_to(domain: Node) -> str:
    """Where the first serial port is logged to; empty: nowhere."""
    log = domain.find("devices/serial/log")
    return "" if log is None else log.get("file", "")


def changes(domain: Node, spec: InstanceSpec, log_path: Path) -> list[pb.ImportDifference]:
    """What `mark` does, for people."""
    added, logged = pb.IMPORT_DIFFERENCE_KIND_ADDED, logged_to(domain)
    there = domain.find("devices/serial") is not None
    return [
        pb.ImportDifference(kind=added, path="metadata", becomes=metadata.NAMESPACE),
        pb.ImportDifference(
            kind=pb.IMPORT_DIFFERENCE_KIND_CHANGED if logged else added,
            path="devices/serial[0]/log" if there else "devices/serial[0]",
            found=logged,
            becomes=str(log_path),
            at_next_start=True,
        ),
        *_renamed_disks(domain, spec),
    ]


def _renamed_disks(domain: Node, spec: InstanceSpec) -> Iterator[pb.ImportDifference]:
    for node, alias in _attachments(domain, spec):
        was = _alias(node)
        yield pb.ImportDifference(
            kind=pb.IMPORT_DIFFERENCE_KIND_CHANGED if was else pb.IMPORT_DIFFERENCE_KIND_ADDED,
            path=f"devices/disk[{Disk.from_xml(node).target}]/alias",
            found=was,
            becomes=alias,
            at_next_start=True,
        )


def mark(domain: Node, own: metadata.InstanceMetadata, log_path: Path) -> None:
    """Puts the service's facts and the console log into a domain."""
    metadata.put_into(domain, own)
    serial = domain.find("devices/serial")
    if serial is None:
        serial = etree.SubElement(_devices(domain), "serial", type="pty")
        etree.SubElement(serial, "target", port="0")
        etree.SubElement(serial, "alias", name=_OUR_PORT)
    _log(serial, str(log_path))
    for node, alias in list(_attachments(domain, own.spec)):
        _rename(node, alias)


def unmark(domain: Node, *, logged: str) -> None:
    """Takes them out again; `logged` is where the serial port was logged to before."""
    holder = domain.find("metadata")
    if holder is not None:
        for node in holder.findall(f"{{{metadata.NAMESPACE}}}instance"):
            holder.remove(node)
    for node in domain.iterfind("devices/disk"):
        former = former_alias(_alias(node))
        if former is not None:
            _rename(node, former)
    serial = domain.find("devices/serial")
    if serial is None:
        return
    alias = serial.find("alias")
    if alias is not None and alias.get("name") == _OUR_PORT:
        devices = _devices(domain)
        devices.remove(serial)
        # libvirt has made one for the port, and would make the port anew for it.
        for console in devices.findall("console/target[@type='serial'].."):
            devices.remove(console)
    else:
        _log(serial, logged)


def _attachments(domain: Node, spec: InstanceSpec) -> Iterator[tuple[Node, str]]:
    """Disks that have bytes somewhere, each with the name that says whose they are.

    Volumes are called as the specification calls them, or as nobody does.
    """
    given = {
        device.device_name.removeprefix("/dev/"): device
        for device in spec.block_devices
        if device.HasField("volume")
    }
    for node in domain.iterfind("devices/disk"):
        disk, was = Disk.from_xml(node), _alias(node)
        source = disk_source(disk)
        if not source or read_disk(disk).role == VOLUME:
            continue
        volume_id = attachment_id = made_id(domain.findtext("uuid", ""), source)
        if disk.target in given:
            volume_id = given[disk.target].volume.volume_id
            attachment_id = given[disk.target].attachment_id or volume_id
        yield node, adopted_alias(attachment_id, volume_id, was)


def _alias(disk: Node) -> str:
    alias = disk.find("alias")
    return "" if alias is None else alias.get("name", "")


def _rename(disk: Node, name: str) -> None:
    _put(disk, "alias", {"name": name} if name else {})


def _log(serial: Node, path: str) -> None:
    """Where it is logged to; empty: nowhere."""
    _put(serial, "log", {"file": path, "append": "on"} if path else {})


def _put(node: Node, tag: str, attributes: Mapping[str, str]) -> None:
    """A child with these attributes; none at all where there are none."""
    child = node.find(tag)
    if not attributes:
        if child is not None:
            node.remove(child)
        return
    if child is None:
        child = etree.SubElement(node, tag)
    for name, value in attributes.items():
        child.set(name, value)


def _devices(domain: Node) -> Node:
    devices = domain.find("devices")
    return etree.SubElement(domain, "devices") if devices is None else devices
