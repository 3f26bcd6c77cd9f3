"""Slots for devices that are plugged in later.

A PCI Express machine takes one device to a root port, and no root port can be added while
it runs; libvirt makes as many as it has devices for at its start.
Source: "PCI topology and hotplug" in libvirt's knowledge base.
"""

from backends.libvirt.xml.domain import Controller, Domain
from backends.libvirt.xml.element import Node

SPARE_SLOTS = 12
_ROOT_PORT = "pcie-root-port"


def add_spare_slots(domain: Domain) -> None:
    """Puts root ports for present and later devices into a domain; others need none."""
    if domain.machine is None or "q35" not in domain.machine:
        return
    present = sum(
        (
            sum(disk.bus == "virtio" for disk in domain.disks),
            len(domain.interfaces),
            len([*domain.controllers, *domain.channels, *domain.watchdogs]),
            domain.balloon is not None,
            domain.rng is not None,
        )
    )
    domain.controllers.append(Controller(type="pci", index=0, model="pcie-root"))
    domain.controllers += [
        Controller(type="pci", model=_ROOT_PORT) for _ in range(present + SPARE_SLOTS)
    ]


def free_slots(domain: Node) -> int | None:
    """Root ports of a running domain that have no device; None where it needs none."""
    ports = {
        int(controller.get("index", "0"))
        for controller in domain.iterfind("devices/controller[@type='pci']")
        if controller.get("model") == _ROOT_PORT
    }
    if not ports:
        return None
    addresses = domain.iterfind("devices/*/address[@type='pci']")
    return len(ports - {int(address.get("bus", "0"), 0) for address in addresses})
