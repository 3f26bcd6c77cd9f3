"""How the guest's CPUs and memory are laid out: topology, NUMA cells, which are pinned.

Source: "CPU topologies" and "Huge pages" in Nova's admin guide. As there, a guest
with pinned CPUs or pages of a chosen size has a NUMA cell even where none was asked
for, so that it stays within one cell of the host.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from virtrpc.v1.spec_pb2 import Flavor

from backends.errors import ContractError
from backends.plan.extra_specs import ExtraSpecs, invalid_extra_spec

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class CpuTopology:
    """Sockets, cores of each, threads of each; their product is the number of vCPUs."""

    sockets: int
    cores: int
    threads: int


@dataclass(frozen=True, kw_only=True)
class GuestCell:
    """A NUMA cell of the guest."""

    cell_id: int
    cpus: frozenset[int]
    memory_mib: int


@dataclass(frozen=True, kw_only=True)
class CpuLayout:
    """CPUs and memory as the guest has them."""

    topology: CpuTopology | None = None
    """None: a socket for each vCPU."""
    cells: tuple[GuestCell, ...] = ()
    """Empty: the guest has no NUMA."""
    pinned: frozenset[int] = frozenset()
    """vCPUs that have a host CPU each to themselves."""
    page_size: str | int | None = None
    """`small`, `large`, `any`, or KiB; None: it does not matter."""


def read_cpu_layout(flavor: Flavor, extra: ExtraSpecs) -> tuple[CpuLayout, list[ContractError]]:
    """The layout that a flavor asks for, and everything that is wrong with it."""
    errors: list[ContractError] = []

    def tried(part: Callable[[Flavor, ExtraSpecs], T], otherwise: T) -> T:
        try:
            return part(flavor, extra)
        except ContractError as error:
            errors.append(error)
            return otherwise

    layout = CpuLayout(
        topology=tried(_topology, None),
        cells=tried(_cells, ()),
        pinned=tried(_pinned, frozenset()),
        page_size=extra.mem_page_size,
    )
    errors.extend(_lone_policies(extra))
    return layout, errors


def _topology(flavor: Flavor, extra: ExtraSpecs) -> CpuTopology | None:
    """The one with most sockets, then most cores, of those that fit."""
    wanted = (extra.cpu_sockets, extra.cpu_cores, extra.cpu_threads)
    most = (extra.max_cpu_sockets, extra.max_cpu_cores, extra.max_cpu_threads)
    if not any((*wanted, *most)):
        return None
    fitting = [
        found
        for found in _products(flavor.vcpus)
        if all(
            (want is None or have == want) and (limit is None or have <= limit)
            for have, want, limit in zip(found, wanted, most, strict=True)
        )
    ]
    if not fitting:
        raise invalid_extra_spec(
            _first_topology_key(extra), f"no such topology has {flavor.vcpus} vCPUs"
        )
    sockets, cores, threads = max(fitting)
    return CpuTopology(sockets=sockets, cores=cores, threads=threads)


def _products(count: int) -> list[tuple[int, int, int]]:
    """All ways to write a number as a product of three."""
    divisors = [number for number in range(1, count + 1) if count % number == 0]
    return [
        (one, two, count // one // two)
        for one in divisors
        for two in divisors
        if count // one % two == 0
    ]


def _first_topology_key(extra: ExtraSpecs) -> str:
    names = ("cpu_sockets", "cpu_cores", "cpu_threads")
    for name in (*names, *(f"max_{name}" for name in names)):
        if getattr(extra, name) is not None:
            return f"hw:{name}"
    return "hw:cpu_sockets"


def _cells(flavor: Flavor, extra: ExtraSpecs) -> tuple[GuestCell, ...]:
    placed = extra.cpu_policy in ("dedicated", "mixed") or extra.mem_page_size is not None
    nodes = extra.numa_nodes or (1 if placed else 0)
    if not extra.numa_nodes:
        _refuse_numa_without_nodes(extra)
    cpus = _cell_cpus(flavor, extra, nodes) if nodes else []
    memory = _cell_memory(flavor, extra, nodes) if nodes else []
    return tuple(
        GuestCell(cell_id=cell, cpus=cpus[cell], memory_mib=memory[cell]) for cell in range(nodes)
    )


def _refuse_numa_without_nodes(extra: ExtraSpecs) -> None:
    for name in ("numa_cpus", "numa_mem"):
        for cell in getattr(extra, name):
            raise invalid_extra_spec(f"hw:{name}.{cell}", "goes with hw:numa_nodes")


def _cell_cpus(flavor: Flavor, extra: ExtraSpecs, nodes: int) -> list[frozenset[int]]:
    if not extra.numa_cpus:
        if flavor.vcpus % nodes:
            why = f"{flavor.vcpus} vCPUs are not divisible by {nodes}"
            raise invalid_extra_spec("hw:numa_nodes", why)
        each = flavor.vcpus // nodes
        return [frozenset(range(cell * each, (cell + 1) * each)) for cell in range(nodes)]
    _need_every_cell("hw:numa_cpus", set(extra.numa_cpus), nodes)
    cells = [extra.numa_cpus[cell].among(flavor.vcpus) for cell in range(nodes)]
    if sorted(cpu for cell in cells for cpu in cell) != list(range(flavor.vcpus)):
        why = f"each of the {flavor.vcpus} vCPUs must be in one cell"
        raise invalid_extra_spec("hw:numa_cpus.0", why)
    return cells


def _cell_memory(flavor: Flavor, extra: ExtraSpecs, nodes: int) -> list[int]:
    if not extra.numa_mem:
        if flavor.memory_mib % nodes:
            why = f"{flavor.memory_mib} MiB are not divisible by {nodes}"
            raise invalid_extra_spec("hw:numa_nodes", why)
        return [flavor.memory_mib // nodes] * nodes
    _need_every_cell("hw:numa_mem", set(extra.numa_mem), nodes)
    if sum(extra.numa_mem.values()) != flavor.memory_mib:
        why = f"the cells must have {flavor.memory_mib} MiB together"
        raise invalid_extra_spec("hw:numa_mem.0", why)
    return [extra.numa_mem[cell] for cell in range(nodes)]


def _need_every_cell(family: str, given: set[int], nodes: int) -> None:
    if given != set(range(nodes)):
        why = f"{family} must be given for each of {nodes} cells"
        raise invalid_extra_spec(f"{family}.{min(given)}", why)


def _pinned(flavor: Flavor, extra: ExtraSpecs) -> frozenset[int]:
    every = frozenset(range(flavor.vcpus))
    if extra.cpu_policy != "mixed":
        if extra.cpu_dedicated_mask is not None:
            raise invalid_extra_spec("hw:cpu_dedicated_mask", "goes with hw:cpu_policy=mixed")
        return every if extra.cpu_policy == "dedicated" else frozenset()
    if extra.cpu_dedicated_mask is None:
        raise invalid_extra_spec("hw:cpu_policy", "mixed needs hw:cpu_dedicated_mask")
    pinned = extra.cpu_dedicated_mask.among(flavor.vcpus)
    if not pinned or not pinned < every:
        why = f"must be some but not all of {flavor.vcpus} vCPUs"
        raise invalid_extra_spec("hw:cpu_dedicated_mask", why)
    return pinned


def _lone_policies(extra: ExtraSpecs) -> list[ContractError]:
    """Policies that mean nothing without pinned CPUs."""
    if extra.cpu_policy in ("dedicated", "mixed"):
        return []
    lone = {
        "hw:cpu_thread_policy": extra.cpu_thread_policy is not None,
        "hw:emulator_threads_policy": extra.emulator_threads_policy == "isolate",
    }
    return [
        invalid_extra_spec(key, "goes with hw:cpu_policy=dedicated") for key in lone if lone[key]
    ]
