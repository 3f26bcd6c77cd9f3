"""CPUs compared by libvirt, which knows the features of the models."""

import libvirt
from virtrpc.v1 import migration_pb2 as pb

from backends.errors import InvalidArgumentError
from backends.libvirt.domains import Domains
from backends.libvirt.probe import Probed
from backends.libvirt.xml.migration import cpu_xml, expanded_features

_COMPARISONS = {
    libvirt.VIR_CPU_COMPARE_INCOMPATIBLE: pb.CPU_COMPARISON_INCOMPATIBLE,
    libvirt.VIR_CPU_COMPARE_IDENTICAL: pb.CPU_COMPARISON_IDENTICAL,
    libvirt.VIR_CPU_COMPARE_SUPERSET: pb.CPU_COMPARISON_SUPERSET,
}
_EXPAND = libvirt.VIR_CONNECT_BASELINE_CPU_EXPAND_FEATURES


class CpuComparer:
    """Compares with this host's CPU. Blocks."""

    def __init__(self, domains: Domains, probed: Probed) -> None:
        self._domains = domains
        self._probed = probed

    def host_cpu(self) -> pb.ComparedCpu:
        """The CPU of this host, with all its features."""
        cpu = self._probed.host.cpu
        return pb.ComparedCpu(
            architecture=cpu.architecture,
            model=cpu.model,
            vendor=cpu.vendor,
            features=cpu.features,
        )

    def compare(self, cpu: pb.ComparedCpu, *, guest: bool) -> pb.CompareCpuResponse:
        """See MigrationService.CompareCpu."""
        own = self.host_cpu()
        asked = pb.ComparedCpu()
        asked.CopyFrom(cpu)
        asked.model = asked.model or own.model  # then only the features count
        if asked.architecture != own.architecture:
            return pb.CompareCpuResponse(comparison=pb.CPU_COMPARISON_INCOMPATIBLE, host_cpu=own)
        try:
            self._require_known(asked)
            missing = self._missing(asked, guest=guest)
            comparison = self._compare(asked, guest=guest)
        except libvirt.libvirtError as error:
            raise self._domains.failed(error) from error
        return pb.CompareCpuResponse(
            comparison=comparison,
            missing_features=missing,
            host_cpu=own,
        )

    def _compare(self, cpu: pb.ComparedCpu, *, guest: bool) -> "pb.CpuComparison.ValueType":
        xml, connection = cpu_xml(cpu, guest=guest), self._connection()
        if not guest:
            return _COMPARISONS[connection.compareCPU(xml, 0)]
        probed = self._probed
        answer = connection.compareHypervisorCPU(
            probed.emulator, cpu.architecture, None, probed.virt_type, xml, 0
        )
        return _COMPARISONS[answer]

    def _missing(self, cpu: pb.ComparedCpu, *, guest: bool) -> list[str]:
        """Features of the other that this host, or what it can offer a guest, lacks."""
        theirs = self._connection().baselineCPU([cpu_xml(cpu, guest=False)], _EXPAND)
        host = self._probed.host
        ours = host.guest_cpu_features if guest else frozenset(host.cpu.features)
        return sorted(expanded_features(theirs) - ours - set(cpu.disabled_features))

    def _require_known(self, cpu: pb.ComparedCpu) -> None:
        if cpu.model not in self._connection().getCPUModelNames(cpu.architecture, 0):
            raise InvalidArgumentError(
                f"the CPU model {cpu.model} is not known here",
                reason="UNKNOWN_CPU_MODEL",
                field="cpu.model",
            )

    def _connection(self) -> libvirt.virConnect:
        return self._domains.connection.handles.own
