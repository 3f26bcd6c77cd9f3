"""The last samples of the guests' counters, with the rates between two of them. Event loop only."""

import time
from collections.abc import Iterable
from dataclasses import dataclass

from virtrpc.v1.diagnostics_pb2 import InstanceDiagnostics
from virtrpc.v1.types_pb2 import Freshness

from backends.contract import Sample

_NS_PER_S = 1_000_000_000


@dataclass(frozen=True)
class Sampled:
    """Counters of one instance, and when they were read."""

    diagnostics: InstanceDiagnostics
    at_ns: int

    def freshness(self) -> Freshness:
        """How current the counters are."""
        freshness = Freshness()
        freshness.observed_at.FromNanoseconds(self.at_ns)
        return freshness


class Samples:
    """By instance; those that are no longer running are forgotten."""

    def __init__(self) -> None:
        self._sampled: dict[str, Sampled] = {}

    def take(self, samples: Iterable[Sample], *, at_ns: int) -> None:
        """A new round: all running instances."""
        self._sampled = {
            sample.instance_id: self._completed(sample, at_ns=at_ns) for sample in samples
        }

    def take_one(self, sample: Sample) -> Sampled:
        """One instance that was asked for by itself."""
        sampled = self._completed(sample, at_ns=time.time_ns())
        self._sampled[sample.instance_id] = sampled
        return sampled

    def get(self, instance_id: str) -> Sampled | None:
        """The last sample of an instance, if it runs and was sampled."""
        return self._sampled.get(instance_id)

    def _completed(self, sample: Sample, *, at_ns: int) -> Sampled:
        diagnostics = sample.diagnostics
        if diagnostics.HasField("counted_since"):
            since_ns = diagnostics.counted_since.ToNanoseconds()
            diagnostics.uptime.FromNanoseconds(max(at_ns - since_ns, 0))
        before = self._sampled.get(sample.instance_id)
        if before is not None and at_ns > before.at_ns:
            _add_rates(diagnostics, before.diagnostics, elapsed_ns=at_ns - before.at_ns)
        return Sampled(diagnostics, at_ns)


def _add_rates(now: InstanceDiagnostics, before: InstanceDiagnostics, *, elapsed_ns: int) -> None:
    """Rates are only told where a counter went on: a restarted guest counts from 0 again."""
    for vcpu, earlier in zip(now.vcpus, before.vcpus, strict=False):
        if vcpu.time_ns >= earlier.time_ns:
            vcpu.utilisation_percent = (vcpu.time_ns - earlier.time_ns) * 100 / elapsed_ns
    by_mac = {interface.mac_address: interface for interface in before.interfaces}
    for interface in now.interfaces:
        old = by_mac.get(interface.mac_address)
        if old is None or not (interface.HasField("counters") and old.HasField("counters")):
            continue
        received = interface.counters.received_bytes - old.counters.received_bytes
        sent = interface.counters.sent_bytes - old.counters.sent_bytes
        if received >= 0 and sent >= 0:
            interface.received_bytes_per_s = received * _NS_PER_S / elapsed_ns
            interface.sent_bytes_per_s = sent * _NS_PER_S / elapsed_ns
