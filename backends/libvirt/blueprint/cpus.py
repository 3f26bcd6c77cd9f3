"""vCPUs of a domain: model, topology, NUMA cells, and the host's CPUs and memory under them."""

from collections.abc import Iterable, Iterator

from backends.libvirt.placement import Placement
from backends.libvirt.xml.domain import Domain
from backends.libvirt.xml.placement import MemoryNode, NumaCell, VcpuPin
from backends.plan import InstancePlan

CPU_MODES = ("host-passthrough", "host-model", "maximum")
_KIB_PER_MIB = 1024


def add_cpus(domain: Domain, plan: InstancePlan, placement: Placement, *, virt_type: str) -> None:
    """Puts vCPUs and their placement into a domain."""
    domain.vcpus = plan.spec.flavor.vcpus
    _add_model(domain, plan.machine.cpu_model, virt_type)
    topology = plan.cpus.topology
    if topology is not None:
        domain.sockets, domain.cores = topology.sockets, topology.cores
        domain.threads = topology.threads
    domain.numa_cells = [
        NumaCell(
            id=cell.cell_id,
            cpus=ranges(cell.cpus),
            memory=cell.memory_mib * _KIB_PER_MIB,
            unit="KiB",
        )
        for cell in plan.cpus.cells
    ]
    if placement.cells:
        _add_placement(domain, placement)
    elif placement.cpus:
        domain.vcpu_placement, domain.vcpu_cpus = "static", ranges(placement.cpus)
    if plan.machine.pmu is not None:
        domain.pmu = "on" if plan.machine.pmu else "off"
    if plan.machine.hypervisor_hidden:
        domain.kvm_hidden = "on"


def _add_model(domain: Domain, model: str, virt_type: str) -> None:
    if model in CPU_MODES:
        domain.cpu_mode = model
    elif model:
        domain.cpu_mode, domain.cpu_model = "custom", model
    elif virt_type == "kvm":
        domain.cpu_mode = "host-model"


def _add_placement(domain: Domain, placement: Placement) -> None:
    domain.vcpu_placement, domain.vcpu_cpus = "static", ranges(placement.cpus)
    domain.vcpu_pins = [
        VcpuPin(vcpu=vcpu, cpus=str(cpu)) for vcpu, cpu in sorted(placement.pins.items())
    ]
    if placement.emulator:
        domain.emulator_cpus = ranges(placement.emulator)
    domain.memory_mode = "strict"
    domain.memory_cells = ranges(placement.cells.values())
    domain.memory_nodes = [
        MemoryNode(cell=guest, mode="strict", host_cells=str(host))
        for guest, host in sorted(placement.cells.items())
    ]
    if placement.page_kib is not None:
        domain.page_size, domain.page_unit = placement.page_kib, "KiB"


def ranges(numbers: Iterable[int]) -> str:
    """Numbers as libvirt writes a set of them: "0-3,5"."""
    return ",".join(
        str(first) if first == last else f"{first}-{last}" for first, last in _runs(numbers)
    )


def _runs(numbers: Iterable[int]) -> Iterator[tuple[int, int]]:
    """First and last of each run without gaps."""
    first = last = None
    for number in sorted(set(numbers)):
        if last is not None and number == last + 1:
            last = number
            continue
        if first is not None and last is not None:
            yield first, last
        first = last = number
    if first is not None and last is not None:
        yield first, last
