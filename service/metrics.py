"""What Prometheus scrapes: calls, operations, instances and their live counters.

Nothing here asks the hypervisor: counters of guests come from the sampler by
way of the truth. Names of domain metrics are those of the libvirt exporter.
"""

from collections.abc import Callable, Iterator
from wsgiref.simple_server import WSGIServer

import grpc
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from virtrpc.address import Address
from virtrpc.v1 import types_pb2
from virtrpc.v1.instance_pb2 import Instance

from service.listeners import ListenError
from service.verbs import Verb

_BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 2.5, 10, 60)


class RpcMetrics:
    """Counts and times the calls."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._handled = Counter(
            "grpc_server_handled",
            "Calls that have ended, by their status.",
            ("grpc_service", "grpc_method", "grpc_code"),
            registry=registry,
        )
        self._seconds = Histogram(
            "grpc_server_handling_seconds",
            "Time from a call's arrival to its end.",
            ("grpc_service", "grpc_method"),
            buckets=_BUCKETS_S,
            registry=registry,
        )
        # Looking a series up by its labels costs more than counting in it.
        self._series: dict[tuple[str, grpc.StatusCode | None], tuple[Counter, Histogram]] = {}

    def observe(self, verb: Verb, code: grpc.StatusCode | None, seconds: float) -> None:
        """One call has ended."""
        series = self._series.get((verb.path, code))
        if series is None:
            series = self._series[verb.path, code] = self._series_of(verb, code)
        handled, taken = series
        handled.inc()
        taken.observe(seconds)

    def _series_of(self, verb: Verb, code: grpc.StatusCode | None) -> tuple[Counter, Histogram]:
        name = (code or grpc.StatusCode.UNKNOWN).name
        return (
            self._handled.labels(verb.service, verb.name, name),
            self._seconds.labels(verb.service, verb.name),
        )


class DaemonMetrics:
    """State of the daemon itself, read at each scrape."""

    def __init__(
        self,
        registry: CollectorRegistry,
        *,
        version: str,
        backend: str,
        connected: Callable[[], float],
        live_operations: Callable[[], float],
        watchers: Callable[[], float],
    ) -> None:
        info = Gauge(
            "virtrpc_info", "The daemon; always 1.", ("version", "backend"), registry=registry
        )
        info.labels(version, backend).set(1)
        for name, text, read in (
            ("virtrpc_hypervisor_connected", "Whether the hypervisor is in reach.", connected),
            ("virtrpc_operations_live", "Operations that have not ended.", live_operations),
            ("virtrpc_event_watchers", "Open event streams.", watchers),
        ):
            Gauge(name, text, registry=registry).set_function(read)


class InstanceMetrics(Collector):
    """Instances and their live counters, from a snapshot of the truth."""

    def __init__(self, snapshot: Callable[[], list[Instance]]) -> None:
        self._snapshot = snapshot

    def describe(self) -> list[Metric]:
        """Nothing to check names against at registration."""
        return []

    def collect(self) -> Iterator[Metric]:
        """All families of one scrape."""
        instances = self._snapshot()
        yield _by_state(instances)
        yield from _domains(instances)


def _by_state(instances: list[Instance]) -> Metric:
    family = GaugeMetricFamily(
        "virtrpc_instances", "Instances by power state.", labels=("power_state",)
    )
    for name, number in types_pb2.PowerState.items():
        if number != types_pb2.POWER_STATE_UNSPECIFIED:
            count = sum(1 for instance in instances if instance.power_state == number)
            family.add_metric((name.removeprefix("POWER_STATE_").lower(),), count)
    return family


def _domains(instances: list[Instance]) -> Iterator[Metric]:
    labels = ("domain", "uuid")
    cpu = CounterMetricFamily(
        "libvirt_domain_info_cpu_time_seconds", "CPU time used since the start.", labels=labels
    )
    memory = GaugeMetricFamily(
        "libvirt_domain_info_memory_usage_bytes", "Memory that the guest has now.", labels=labels
    )
    maximum = GaugeMetricFamily(
        "libvirt_domain_info_maximum_memory_bytes", "Most memory it may have.", labels=labels
    )
    vcpus = GaugeMetricFamily(
        "libvirt_domain_info_virtual_cpus", "vCPUs of the instance.", labels=labels
    )
    for instance in instances:
        key = (instance.name, instance.instance_id)
        cpu.add_metric(key, instance.cpu_time_ns / 1e9)
        memory.add_metric(key, instance.memory_kib * 1024)
        maximum.add_metric(key, instance.max_memory_kib * 1024)
        vcpus.add_metric(key, instance.vcpus)
    yield from (cpu, memory, maximum, vcpus)


def serve(registry: CollectorRegistry, address: str) -> WSGIServer:
    """Serves `/metrics` on a thread of its own until the server is shut down.

    Raises ListenError where the address is none, or is taken.
    """
    try:
        place = Address.parse(address)
        server, _thread = start_http_server(place.port, addr=place.host, registry=registry)
    except (ValueError, OSError) as error:
        raise ListenError(f"cannot serve metrics on {address}: {error}") from error
    return server
