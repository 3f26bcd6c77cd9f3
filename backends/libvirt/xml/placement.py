"""Parts of a domain that say where its CPUs and memory are, and what firmware it has.

Source: libvirt's "Domain XML format", as for the rest of the domain.
"""

from dataclasses import dataclass

from backends.libvirt.xml.element import Element, number, text, yes_no


@dataclass
class FirmwareFeature(Element):
    """Something that the firmware which libvirt chooses must have, or must not."""

    tag = "feature"
    name: str | None = text("@name")
    enabled: bool | None = yes_no("@enabled")


@dataclass
class VcpuPin(Element):
    """Host CPUs that a vCPU may run on."""

    tag = "vcpupin"
    vcpu: int | None = number("@vcpu")
    cpus: str | None = text("@cpuset")


@dataclass
class NumaCell(Element):
    """A NUMA cell of the guest."""

    tag = "cell"
    id: int | None = number("@id")
    cpus: str | None = text("@cpus")
    memory: int | None = number("@memory")
    unit: str | None = text("@unit")


@dataclass
class MemoryNode(Element):
    """Cell of the host that the memory of a cell of the guest comes from."""

    tag = "memnode"
    cell: int | None = number("@cellid")
    mode: str | None = text("@mode")
    host_cells: str | None = text("@nodeset")
