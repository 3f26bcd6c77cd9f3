"""What the service writes into a domain that it adopts, and how it is taken out again. Pure.

    its metadata                       at once, in the running domain too
    a log for the first serial port    at the next start

Whatever else is in the domain stays as it is.
"""

from collections.abc import Mapping
from pathlib import Path

from lxml import etree
from virtrpc.v1 import host_pb2 as pb

from backends.libvirt.xml import metadata
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


def changes(domain: Node, log_path: Path) -> list[pb.ImportDifference]:
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
    ]


def mark(domain: Node, own: metadata.InstanceMetadata, log_path: Path) -> None:
    """Puts the service's facts and the console log into a domain."""
    metadata.put_into(domain, own)
    serial = domain.find("devices/serial")
    if serial is None:
        serial = etree.SubElement(_devices(domain), "serial", type="pty")
        etree.SubElement(serial, "target", port="0")
        etree.SubElement(serial, "alias", name=_OUR_PORT)
    _log(serial, str(log_path))


def unmark(domain: Node, *, logged: str) -> None:
    """Takes them out again; `logged` is where the serial port was logged to before."""
    holder = domain.find("metadata")
    if holder is not None:
        for node in holder.findall(f"{{{metadata.NAMESPACE}}}instance"):
            holder.remove(node)
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


def _log(serial: Node, path: str) -> None:
    """Where it is logged to; empty: nowhere."""
    log = serial.find("log")
    if not path:
        if log is not None:
            serial.remove(log)
        return
    if log is None:
        log = etree.SubElement(serial, "log")
    log.set("file", path)
    log.set("append", "on")


def _devices(domain: Node) -> Node:
    devices = domain.find("devices")
    return etree.SubElement(domain, "devices") if devices is None else devices
