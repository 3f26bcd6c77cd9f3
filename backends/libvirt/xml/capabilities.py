"""What libvirt says of host and hypervisor: the few facts of its capability documents used here.

Sources: "Capabilities XML format" and "Domain capabilities XML format" of libvirt.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from backends.libvirt.xml.element import Node, parse

_SMALL_PAGE_KIB = 4


@dataclass(frozen=True, kw_only=True)
class HostCell:
    """A NUMA cell of the host."""

    cell_id: int
    cores: tuple[frozenset[int], ...]
    """CPUs by physical core; those of one core are siblings."""
    huge_pages: Mapping[int, int]
    """Size in KiB, beyond the small ones → pages of it, where there are any."""

    @property
    def cpus(self) -> frozenset[int]:
        """All CPUs of the cell."""
        return frozenset(cpu for core in self.cores for cpu in core)


@dataclass(frozen=True, kw_only=True)
class GuestCapabilities:
    """What guests of one emulator and domain type can have."""

    firmware: frozenset[str] = frozenset()
    """Kinds that libvirt can choose by itself: "efi"."""
    secure_loader: bool = False
    cpu_modes: frozenset[str] = frozenset()
    cpu_models: frozenset[str] = frozenset()
    """Named models that can be run here."""
    graphics: frozenset[str] = frozenset()
    tpm_models: frozenset[str] = frozenset()
    tpm_emulator: bool = False
    filesystem_drivers: frozenset[str] = frozenset()
    """Ways to share a directory: "virtiofs"."""


def read_cells(capabilities: str) -> tuple[HostCell, ...]:
    """NUMA cells from the host's capabilities."""
    return tuple(
        HostCell(cell_id=int(cell.get("id", "0")), cores=_cores(cell), huge_pages=_huge_pages(cell))
        for cell in parse(capabilities).iterfind("host/topology/cells/cell")
    )


def read_machine_types(capabilities: str, domain_type: str) -> frozenset[str]:
    """Machine types, aliases included, of x86_64 guests of a domain type."""
    found: set[str] = set()
    for arch in parse(capabilities).iterfind("guest/arch[@name='x86_64']"):
        own = arch.find(f"domain[@type='{domain_type}']")
        if own is not None:
            found.update(machine.text or "" for machine in arch.iterfind("machine"))
            found.update(machine.text or "" for machine in own.iterfind("machine"))
    return frozenset(found)


def read_guest_capabilities(domain_capabilities: str) -> GuestCapabilities:
    """The facts of a <domainCapabilities> document."""
    node = parse(domain_capabilities)
    return GuestCapabilities(
        firmware=_values(node, "os/enum[@name='firmware']"),
        secure_loader="yes" in _values(node, "os/loader/enum[@name='secure']"),
        cpu_modes=frozenset(
            mode.get("name", "") for mode in node.iterfind("cpu/mode[@supported='yes']")
        ),
        cpu_models=frozenset(
            model.text or ""
            for model in node.iterfind("cpu/mode[@name='custom']/model")
            if model.get("usable") != "no"
        ),
        graphics=_values(node, "devices/graphics/enum[@name='type']"),
        tpm_models=_values(node, "devices/tpm/enum[@name='model']"),
        filesystem_drivers=_values(node, "devices/filesystem/enum[@name='driverType']"),
        tpm_emulator="emulator" in _values(node, "devices/tpm/enum[@name='backendModel']"),
    )


def _values(node: Node, path: str) -> frozenset[str]:
    return frozenset(value.text or "" for value in node.iterfind(f"{path}/value"))


def _cores(cell: Node) -> tuple[frozenset[int], ...]:
    cores: dict[tuple[str | None, ...], set[int]] = {}
    for cpu in cell.iterfind("cpus/cpu"):
        core = (cpu.get("socket_id"), cpu.get("die_id"), cpu.get("core_id"))
        cores.setdefault(core, set()).add(int(cpu.get("id", "0")))
    return tuple(frozenset(cpus) for cpus in sorted(cores.values(), key=min))


def _huge_pages(cell: Node) -> dict[int, int]:
    sizes = {
        int(pages.get("size", "0")): int(pages.text or "0") for pages in cell.iterfind("pages")
    }
    return {size: count for size, count in sizes.items() if size > _SMALL_PAGE_KIB and count}
