"""From a specification to a domain: pure functions, without libvirt."""

from backends.libvirt.blueprint.devices import AGENT_CHANNEL
from backends.libvirt.blueprint.disks import disk_path
from backends.libvirt.blueprint.domain import Place, domain_xml
from backends.libvirt.blueprint.limits import unsupported, unwritable
from backends.libvirt.blueprint.volumes import LocatedVolume

__all__ = [
    "AGENT_CHANNEL",
    "LocatedVolume",
    "Place",
    "disk_path",
    "domain_xml",
    "unsupported",
    "unwritable",
]
