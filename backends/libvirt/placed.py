"""Where on the host a domain has been placed, read back from its XML."""

from collections.abc import Iterator

from virtrpc.v1.instance_pb2 import MachineCell

from backends.libvirt.xml.domain import Domain


def read_host_cells(domain: Domain) -> list[MachineCell]:
    """Cells of the host that have cells of the guest; empty where it is not bound to any."""
    nodes = {node.cell: node.host_cells or "" for node in domain.memory_nodes}
    return [
        MachineCell(
            cell_id=int(host), vcpus=len(numbers(cell.cpus or "")), memory_kib=cell.memory or 0
        )
        for cell in domain.numa_cells
        if (host := nodes.get(cell.id, "")).isdigit()
    ]


def read_own_cpus(domain: Domain) -> frozenset[int]:
    """Host CPUs that a vCPU, or the emulator alone, is pinned to."""
    pinned = [*(pin.cpus or "" for pin in domain.vcpu_pins), domain.emulator_cpus or ""]
    return frozenset(int(cpu) for cpu in pinned if cpu.isdigit())


def numbers(text: str) -> frozenset[int]:
    """A set of numbers as libvirt writes it: "0-3,5"."""
    return frozenset(number for part in text.split(",") for number in _range(part))


def _range(part: str) -> Iterator[int]:
    first, _, last = part.strip().partition("-")
    if first.isdigit():
        yield from range(int(first), int(last or first) + 1)
