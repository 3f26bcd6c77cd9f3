"""The host as libvirt's capability documents describe it: its CPUs, and its NUMA cells.

Sources: "Capabilities XML format" and "Domain capabilities XML format" of libvirt.
"""

from collections.abc import Iterable

from lxml import etree
from virtrpc.v1 import host_pb2 as pb

from backends.libvirt.xml.element import Node, parse, to_text

_KIB_PER = {"b": 1 / 1024, "bytes": 1 / 1024, "KiB": 1, "MiB": 1 << 10, "GiB": 1 << 20}
_KIB_PER_MIB = 1 << 10


def read_host_cpu(capabilities: str) -> pb.HostCpu:
    """The host's CPUs, with the features that stand beside their model."""
    cpu = parse(capabilities).find("host/cpu")
    if cpu is None:
        return pb.HostCpu()
    topology = cpu.find("topology")
    found = pb.HostCpu(
        architecture=cpu.findtext("arch", ""),
        vendor=cpu.findtext("vendor", ""),
        model=cpu.findtext("model", ""),
        features=sorted(_features(cpu)),
    )
    if topology is not None:
        for name in ("sockets", "dies", "cores", "threads"):
            setattr(found, name, int(topology.get(name, "1")))
    return found


def host_cpu(capabilities: str) -> str | None:
    """The host's <cpu>, as libvirt expands it; None where it is not described."""
    cpu = parse(capabilities).find("host/cpu[model]")
    return None if cpu is None else to_text(cpu)


def guest_cpu(domain_capabilities: str) -> str | None:
    """The <cpu> that a guest of mode host-model would have, in the form of a host's.

    In that form alone libvirt expands it for every kind of guest.
    """
    document = parse(domain_capabilities)
    mode = document.find("cpu/mode[@name='host-model'][@supported='yes']")
    if mode is None or mode.find("model") is None:
        return None
    cpu: Node = etree.Element("cpu")
    etree.SubElement(cpu, "arch").text = document.findtext("arch", "")
    etree.SubElement(cpu, "model").text = mode.findtext("model", "")
    for name in sorted(_features(mode)):
        etree.SubElement(cpu, "feature", name=name)
    return to_text(cpu)


def features_guests_lack(domain_capabilities: str) -> frozenset[str]:
    """Features of the model of mode host-model that guests cannot be given all the same."""
    path = "cpu/mode[@name='host-model']/feature[@policy='disable']"
    return frozenset(
        feature.get("name", "") for feature in parse(domain_capabilities).iterfind(path)
    )


def read_features(expanded: str) -> frozenset[str]:
    """CPU features that an expanded <cpu> has."""
    return frozenset(_features(parse(expanded)))


def read_numa_cells(capabilities: str) -> tuple[pb.NumaCell, ...]:
    """NUMA cells with all that they have. Every CPU may be shared, and may be given away."""
    return tuple(
        _numa_cell(cell) for cell in parse(capabilities).iterfind("host/topology/cells/cell")
    )


def _features(cpu: Node) -> Iterable[str]:
    for feature in cpu.iterfind("feature"):
        if feature.get("policy") not in ("disable", "forbid"):
            yield feature.get("name", "")


def _numa_cell(node: Node) -> pb.NumaCell:
    cpus = node.findall("cpus/cpu")
    numbers = sorted(int(cpu.get("id", "0")) for cpu in cpus)
    return pb.NumaCell(
        cell_id=int(node.get("id", "0")),
        shared_cpus=numbers,
        dedicated_cpus=numbers,
        siblings=_siblings(cpus),
        socket_id=int(cpus[0].get("socket_id", "0")) if cpus else 0,
        memory_mib=_memory_mib(node),
        pages=[
            pb.PagePool(page_size_kib=int(pool.get("size", "0")), total=int(pool.text or "0"))
            for pool in node.iterfind("pages")
        ],
        distances={
            int(other.get("id", "0")): int(other.get("value", "0"))
            for other in node.iterfind("distances/sibling")
        },
    )


def _memory_mib(node: Node) -> int:
    memory = node.find("memory")
    if memory is None:
        return 0
    return int(int(memory.text or "0") * _KIB_PER[memory.get("unit", "KiB")]) // _KIB_PER_MIB


def _siblings(cpus: Iterable[Node]) -> list[pb.CpuSiblings]:
    cores: dict[tuple[str | None, ...], list[int]] = {}
    for cpu in cpus:
        core = (cpu.get("socket_id"), cpu.get("die_id"), cpu.get("core_id"))
        cores.setdefault(core, []).append(int(cpu.get("id", "0")))
    return [pb.CpuSiblings(cpus=sorted(core)) for core in sorted(cores.values(), key=min)]
