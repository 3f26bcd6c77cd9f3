"""A domain of another size and shape; devices that it has otherwise stay as they are."""

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
