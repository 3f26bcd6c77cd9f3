"""A domain with other disks of its own; all else that it has stays as it is."""

from lxml import etree

from backends.libvirt.attached_disks import ALIAS_PREFIX
from backends.libvirt.blueprint.domain import Place, domain_xml
from backends.libvirt.xml import metadata
from backends.libvirt.xml.element import Node, parse
from backends.libvirt.xml.metadata import InstanceMetadata
from backends.plan.disks import OWN_ROLES

_KERNEL = ("kernel", "initrd", "cmdline")


def rebuild_domain(node: Node, instance_id: str, own: InstanceMetadata, place: Place) -> None:
    """Gives a <domain> the disks, kernel and facts of a specification, `own.spec`."""
    fresh = parse(domain_xml(instance_id, own, place))
    replace_children(child(node, "os"), child(fresh, "os"), *_KERNEL, gone=("boot",))
    replace_disks(child(node, "devices"), own_disks(fresh))
    metadata.put_into(node, own)


def replace_disks(devices: Node, wanted: dict[str, Node]) -> None:
    """A disk that stays keeps its name and address; only whether it is booted from may change."""
    present = own_disks(devices)
    for alias, disk in present.items():
        if alias in wanted:
            replace_children(disk, wanted[alias], "boot")
        else:
            devices.remove(disk)
    devices.extend(disk for alias, disk in wanted.items() if alias not in present)


def own_disks(node: Node) -> dict[str, Node]:
    """Disks of the instance's own, by alias."""
    found = {}
    for disk in node.iter("disk"):
        alias = disk.find("alias")
        name = "" if alias is None else alias.get("name", "")
        if name.removeprefix(ALIAS_PREFIX).partition("-")[0] in OWN_ROLES:
            found[name] = disk
    return found


def replace_children(node: Node, source: Node, *tags: str, gone: tuple[str, ...] = ()) -> None:
    """Makes an element's children of these tags those of another element; some only go."""
    for tag in (*tags, *gone):
        for child in node.findall(tag):
            node.remove(child)
    for tag in tags:
        node.extend(source.findall(tag))


def child(node: Node, tag: str) -> Node:
    """An element's child of a tag, made if need be."""
    found = node.find(tag)
    return etree.SubElement(node, tag) if found is None else found
