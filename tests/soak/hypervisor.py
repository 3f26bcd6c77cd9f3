"""libvirtd is stopped for a minute, then killed again and again: never blind, never hanging."""

import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Mapping
from statistics import quantiles
from urllib.request import urlopen

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from virtrpc.v1 import instance_pb2
from virtrpc.v1.event_pb2 import EVENT_TYPE_HYPERVISOR_CONNECTED, EVENT_TYPE_HYPERVISOR_DISCONNECTED

from tests.daemon import Connection, DaemonProcess
from tests.events_seen import cursor_now, events_after
from tests.instances import small_spec, spawned
from tests.libvirtd import LibvirtdHost
from tests.refusals import refusal_of

DEADLINE_S = 1.0
PAUSE_S = 0.02


class Asker(threading.Thread):
    """Asks what must never wait for the hypervisor, again and again, until `stop` is set."""

    def __init__(self, connection: Connection, *, instance_id: str, metrics: str) -> None:
        super().__init__(name="asker")
        self.stop = threading.Event()
        self.faults: list[str] = []
        self.stale = 0
        self.waited_s: dict[str, list[float]] = defaultdict(list)
        health = health_pb2_grpc.HealthStub(connection.channel)
        get = instance_pb2.GetInstanceRequest(instance_id=instance_id)
        everything = instance_pb2.ListInstancesRequest()
        instances = connection.instances
        self._questions: Mapping[str, Callable[[], bool]] = {
            "health": lambda: (
                health.Check(health_pb2.HealthCheckRequest(), timeout=DEADLINE_S).status
                != health_pb2.HealthCheckResponse.SERVING
            ),
            "GetInstance": lambda: instances.GetInstance(get, timeout=DEADLINE_S).freshness.stale,
            "ListInstances": lambda: (
                instances.ListInstances(everything, timeout=DEADLINE_S).freshness.stale
            ),
            "metrics": lambda: not urlopen(f"http://{metrics}/metrics", timeout=DEADLINE_S).read(),
        }

    def run(self) -> None:
        while not self.stop.wait(PAUSE_S):
            for name, ask in self._questions.items():
                self._ask(name, ask)

    def _ask(self, name: str, ask: Callable[[], bool]) -> None:
        began = time.monotonic()
        try:
            told = ask()
        except (grpc.RpcError, OSError) as error:
            self.faults.append(f"{name}: {error}")
            return
        self.waited_s[name].append(time.monotonic() - began)
        if name in ("health", "metrics"):
            self.faults += [f"{name} says that nothing serves"] if told else []
        else:
            self.stale += told


def stop_for(
    daemon: DaemonProcess, host: LibvirtdHost, *, seconds: float, metrics: str
) -> list[str]:
    """Everything that was wrong while libvirtd was stopped, and after it went on."""
    with (
        daemon.connect() as connection,
        spawned(connection, small_spec(backend="libvirt")) as instance_id,
    ):
        asker = Asker(connection, instance_id=instance_id, metrics=metrics)
        cursor = cursor_now(connection)
        host.freeze()
        try:
            asker.start()
            lost = EVENT_TYPE_HYPERVISOR_DISCONNECTED
            events_after(connection, cursor, until=lambda event: event.type == lost)
            faults = _refused(connection, instance_id)
            asker.stop.wait(seconds)
            faults += _refused(connection, instance_id)
            asker.stop.set()
            asker.join()
        finally:
            host.thaw()
        found = EVENT_TYPE_HYPERVISOR_CONNECTED
        events_after(connection, cursor, until=lambda event: event.type == found)
        pause = instance_pb2.PauseInstanceRequest(instance_id=instance_id)
        connection.instances.PauseInstance(pause, timeout=DEADLINE_S * 10)
        _report(asker, seconds)
    return [*faults, *asker.faults, *([] if asker.stale else ["no read was told to be stale"])]


def _refused(connection: Connection, instance_id: str) -> list[str]:
    """A mutation is refused at once."""
    request = instance_pb2.PauseInstanceRequest(
        instance_id=instance_id, request_id=str(uuid.uuid4())
    )
    try:
        connection.instances.PauseInstance(request, timeout=DEADLINE_S)
    except grpc.RpcError as error:
        refusal = refusal_of(error)
        if refusal.reason == "HYPERVISOR_UNREACHABLE":
            return []
        return [f"a mutation was refused as {refusal.code} {refusal.reason}"]
    return ["a mutation succeeded while libvirtd was stopped"]


def _report(asker: Asker, seconds: float) -> None:
    print(f"{seconds:8.0f} s of a stopped libvirtd; {asker.stale} reads were told to be stale")
    for name, waited_s in asker.waited_s.items():
        p99_ms = 1000 * quantiles(waited_s, n=100)[-1]
        print(f"{len(waited_s):8} {name}, p99 {p99_ms:.0f} ms, {1000 * max(waited_s):.0f} at most")
