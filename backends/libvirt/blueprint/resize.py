"""A domain of another size and shape; devices that it has otherwise stay as they are."""

from backends.libvirt.attached_disks import volume_alias
from backends.libvirt.blueprint.domain import Place, domain_xml
from backends.libvirt.blueprint.rebuild import child, own_disks, replace_children, replace_disks
from backends.libvirt.xml import metadata
from backends.libvirt.xml.element import Node, parse
from backends.libvirt.xml.metadata import InstanceMetadata

_WHOLE = ("memory", "currentMemory", "vcpu", "cputune", "numatune")
# Of elements that say other things too.
_PARTS = (("cpu", ("topology", "numa")), ("memoryBacking", ("hugepages",)))


def resize_domain(node: Node, instance_id: str, own: InstanceMetadata, place: Place) -> None:
    """Gives a <domain> vCPUs, memory, disks and facts of a specification, `own.spec`."""
    fresh = parse(domain_xml(instance_id, own, place))
    replace_children(node, fresh, *_WHOLE)
    for tag, parts in _PARTS:
        part = child(node, tag)
        replace_children(part, child(fresh, tag), *parts)
        if not (len(part) or part.attrib):
            node.remove(part)
    replace_disks(child(node, "devices"), own_disks(fresh))
    metadata.put_into(node, own)


def keep_present(kept: Node, present: Node) -> None:
    """Gives a <domain> of before a resize what is not its size's affair, as it is by now.

    Volumes and interfaces belong to others, who have attached and detached them since; what was
    said of the instance was said of it in any size.
    """
    devices, now = child(kept, "devices"), child(present, "devices")
    volumes = _volumes(now)
    for alias, disk in _volumes(devices).items():
        if alias in volumes:  # in rescue all else is booted later
            replace_children(volumes[alias], disk, "boot")
    _replace(devices, [*_volumes(devices).values()], [*volumes.values()])
    _replace(devices, devices.findall("interface"), now.findall("interface"))
    there = {controller.get("index") for controller in _scsi(devices)}
    devices.extend(one for one in _scsi(now) if one.get("index") not in there)
    own, said = metadata.find_in(kept), metadata.find_in(present)
    if own is None or said is None:
        return
    own.spec.ClearField("interfaces")
    own.spec.interfaces.extend(said.spec.interfaces)
    own.snapshots, own.overlays, own.metadata = said.snapshots, said.overlays, said.metadata
    own.bootable, own.reclaim_at = said.bootable, said.reclaim_at
    metadata.put_into(kept, own)


def _replace(devices: Node, gone: list[Node], come: list[Node]) -> None:
    for device in gone:
        devices.remove(device)
    devices.extend(come)


def _volumes(devices: Node) -> dict[str, Node]:
    """Disks that are volumes, by alias."""
    found = {}
    for disk in devices.findall("disk"):
        alias = disk.find("alias")
        name = "" if alias is None else alias.get("name", "")
        if name.startswith(volume_alias("")):
            found[name] = disk
    return found


def _scsi(devices: Node) -> list[Node]:
    return [one for one in devices.findall("controller") if one.get("type") == "scsi"]
