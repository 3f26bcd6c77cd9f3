"""What a scrape tells: calls, operations, instances and their live counters."""

import re
import socket
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import closing
from urllib.request import urlopen

import grpc
import pytest
from prometheus_client.parser import text_string_to_metric_families
from virtrpc.v1 import event_pb2
from virtrpc.v1 import instance_pb2 as pb

from tests.conftest import MakeDaemon
from tests.daemon import Connection
from tests.events_seen import cursor_now
from tests.instances import TIMEOUT_S, small_spec, spawned
from tests.refusals import refused

NOT_FOUND = grpc.StatusCode.NOT_FOUND
CANARY = "canary-0c8d"
Samples = Mapping[tuple[str, frozenset[tuple[str, str]]], float]


class Exporter:
    """The metrics endpoint of a daemon."""

    def __init__(self, address: str, connection: Connection) -> None:
        self.connection = connection
        self._url = f"http://{address}/metrics"

    def text(self) -> str:
        with urlopen(self._url, timeout=TIMEOUT_S) as reply:  # noqa: S310 - http
            content: bytes = reply.read()
        return content.decode()

    def samples(self) -> Samples:
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(self.text())
            for sample in family.samples
        }

    def value(self, name: str, **labels: str) -> float:
        return self.samples()[name, frozenset(labels.items())]

    def reaches(self, wanted: float, name: str, **labels: str) -> bool:
        """A call is counted when its reply has gone, so a little later."""
        for _ in range(50):
            if self.samples().get((name, frozenset(labels.items()))) == wanted:
                return True
            time.sleep(0.05)
        return False


@pytest.fixture(scope="module")
def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@pytest.fixture
def exporter(make_daemon: MakeDaemon, free_port: int) -> Iterator[Exporter]:
    address = f"127.0.0.1:{free_port}"
    daemon = make_daemon(f"--metrics={address}", "--sample-interval=0.1").start()
    with daemon.connect() as connection:
        yield Exporter(address, connection)


def test_daemon_and_its_hypervisor(exporter: Exporter) -> None:
    samples = exporter.samples()
    (info,) = [labels for name, labels in samples if name == "virtrpc_info"]
    assert dict(info)["backend"] == "fake"
    assert samples["virtrpc_info", info] == 1
    assert samples["virtrpc_hypervisor_connected", frozenset()] == 1
    assert samples["virtrpc_operations_live", frozenset()] == 0
    assert samples["virtrpc_event_watchers", frozenset()] == 0


def test_calls_are_counted_and_timed_by_their_status(exporter: Exporter) -> None:
    service, method = "virtrpc.v1.InstanceService", "GetInstance"
    for _ in range(3):
        with refused(NOT_FOUND):
            request = pb.GetInstanceRequest(instance_id=str(uuid.uuid4()))
            exporter.connection.instances.GetInstance(request, timeout=TIMEOUT_S)
    labels = {"grpc_service": service, "grpc_method": method}
    assert exporter.reaches(3, "grpc_server_handled_total", **labels, grpc_code="NOT_FOUND")
    assert exporter.value("grpc_server_handling_seconds_count", **labels) == 3
    assert exporter.value("grpc_server_handling_seconds_sum", **labels) < 10


def test_instances_by_state_and_their_counters(exporter: Exporter) -> None:
    connection = exporter.connection
    spec = small_spec(backend="fake")
    with spawned(connection, spec) as instance_id:
        one = {"domain": spec.name, "uuid": instance_id}
        assert exporter.value("virtrpc_instances", power_state="running") == 1
        assert exporter.value("virtrpc_instances", power_state="paused") == 0
        memory = spec.flavor.memory_mib << 20
        assert exporter.value("libvirt_domain_info_maximum_memory_bytes", **one) == memory
        assert exporter.value("libvirt_domain_info_memory_usage_bytes", **one) == memory
        assert exporter.value("libvirt_domain_info_virtual_cpus", **one) == 1
        assert exporter.value("libvirt_domain_info_cpu_time_seconds_total", **one) >= 0
        pause = pb.PauseInstanceRequest(instance_id=instance_id)
        connection.instances.PauseInstance(pause, timeout=TIMEOUT_S)
        assert exporter.value("virtrpc_instances", power_state="paused") == 1
    assert exporter.value("virtrpc_instances", power_state="running") == 0
    assert instance_id not in exporter.text()


def test_live_operations_and_watchers(exporter: Exporter) -> None:
    connection = exporter.connection
    spec = small_spec(backend="fake")
    spec.labels["fake/spawn_instance"] = "delay:60"
    request = pb.SpawnInstanceRequest(instance_id=str(uuid.uuid4()), spec=spec)
    connection.instances.SpawnInstance(request, timeout=TIMEOUT_S)
    stream = connection.events.WatchEvents(event_pb2.WatchEventsRequest(snapshot=True))
    next(stream)
    assert exporter.value("virtrpc_operations_live") == 1
    assert exporter.value("virtrpc_event_watchers") == 1
    stream.cancel()
    destroy = pb.DestroyInstanceRequest(instance_id=request.instance_id)
    connection.instances.DestroyInstance(destroy, timeout=TIMEOUT_S)
    assert exporter.value("virtrpc_operations_live") == 0


def test_every_family_has_a_help_text_and_names_are_those_of_the_field(exporter: Exporter) -> None:
    for family in text_string_to_metric_families(exporter.text()):
        assert family.documentation.endswith("."), family.name
        assert re.fullmatch(r"(virtrpc|grpc_server|libvirt_domain_info)_[a-z_]+", family.name)


def test_scrape_tells_no_secret(exporter: Exporter) -> None:
    spec = small_spec(backend="fake")
    spec.guest.admin_password = CANARY
    with spawned(exporter.connection, spec):
        cursor_now(exporter.connection)
        assert CANARY not in exporter.text()
