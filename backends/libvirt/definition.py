"""A domain's definition, read and replaced as a whole: what is not understood stays."""

import libvirt

from backends.libvirt.domains import Domains
from backends.libvirt.xml.element import Node, parse, to_text

_AS_DEFINED = libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE


def persistent(domains: Domains, domain: libvirt.virDomain) -> Node:
    """The <domain> as it will be at its next start, secrets included: not to be logged."""
    try:
        return parse(domain.XMLDesc(_AS_DEFINED))
    except libvirt.libvirtError as error:
        raise domains.failed(error, domain.UUIDString()) from error


def define(domains: Domains, node: Node) -> libvirt.virDomain:
    """Defines a <domain> anew, for its next start."""
    try:
        return domains.connection.handles.own.defineXML(to_text(node))
    except libvirt.libvirtError as error:
        raise domains.failed(error, node.findtext("uuid", "")) from error


def start_from_disk(domains: Domains, domain: libvirt.virDomain) -> None:
    """Boots a domain that is off, not from memory that was saved."""
    discard_saved(domains, domain)
    try:
        domains.start(domain)
    except libvirt.libvirtError as error:
        raise domains.failed(error, domain.UUIDString()) from error


def discard_saved(domains: Domains, domain: libvirt.virDomain) -> None:
    """Forgets memory that was saved: it belongs to the disks that the machine had then."""
    try:
        if domain.hasManagedSaveImage():
            domain.managedSaveRemove()
    except libvirt.libvirtError as error:
        raise domains.failed(error, domain.UUIDString()) from error


def power_on(domains: Domains, instance_id: str) -> None:
    """Undo of a stop: starts a domain that is off; nothing where it runs or is unknown."""
    domain = domains.find(instance_id)
    try:
        if domain is not None and not domain.isActive():
            domains.start(domain)
    except libvirt.libvirtError as error:
        raise domains.failed(error, instance_id) from error
