"""What the host is made of, found out at every connect: it does not change in between."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import libvirt
import structlog
from virtrpc.v1 import host_pb2 as pb

from backends.libvirt.errors import is_lost
from backends.libvirt.xml.host import (
    features_guests_lack,
    guest_cpu,
    host_cpu,
    read_features,
    read_host_cpu,
    read_numa_cells,
)

_CPU_INFO = Path("/proc/cpuinfo")
log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True)
class HostFacts:
    """The host without what is used of it."""

    hostname: str = ""
    vcpus: int = 0
    cpu: pb.HostCpu = field(default_factory=pb.HostCpu)
    cells: Sequence[pb.NumaCell] = ()
    guest_cpu_features: frozenset[str] = frozenset()


def probe_host(
    connection: libvirt.virConnect, capabilities: str, domain_capabilities: str | None
) -> HostFacts:
    """Asks libvirt; raises libvirt.libvirtError."""
    _, _, vcpus, mhz, *_ = connection.getInfo()
    cpu, cells = read_host_cpu(capabilities), read_numa_cells(capabilities)
    cpu.features[:] = sorted({*cpu.features, *_expanded(connection, host_cpu(capabilities))})
    cpu.mhz, cpu.cells, cpu.model_name = mhz, len(cells), _model_name()
    return HostFacts(
        hostname=connection.getHostname(),
        vcpus=vcpus,
        cpu=cpu,
        cells=cells,
        guest_cpu_features=_guest_features(connection, domain_capabilities),
    )


def _guest_features(
    connection: libvirt.virConnect, domain_capabilities: str | None
) -> frozenset[str]:
    if domain_capabilities is None:
        return frozenset()
    has = _expanded(connection, guest_cpu(domain_capabilities))
    return has - features_guests_lack(domain_capabilities)


def _expanded(connection: libvirt.virConnect, cpu: str | None) -> frozenset[str]:
    """All features of a <cpu>, those of its model included; empty where nobody can tell."""
    if cpu is None:
        return frozenset()
    try:
        return read_features(
            connection.baselineCPU([cpu], libvirt.VIR_CONNECT_BASELINE_CPU_EXPAND_FEATURES)
        )
    except libvirt.libvirtError as error:
        if is_lost(error):
            raise
        log.info("features of the CPU's model are not known", reason=str(error))
        return frozenset()


def _model_name() -> str:
    """As the CPU calls itself."""
    for line in _CPU_INFO.read_text(encoding="ascii", errors="replace").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return ""
