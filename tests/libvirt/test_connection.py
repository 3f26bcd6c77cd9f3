"""libvirtd dies, hangs or is not there yet: the daemon says so, answers in time and comes back."""

import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import grpc
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from virtrpc.v1 import event_pb2, host_pb2, instance_pb2, operation_pb2, volume_pb2
from virtrpc.v1.event_pb2 import Event, EventCursor, EventType
from virtrpc.v1.operation_pb2 import Operation
from virtrpc.v1.types_pb2 import PowerState

from backends.errors import UnreachableError
from backends.libvirt import handles
from backends.libvirt.connection import start_event_loop
from deploy.demo.place import free_port
from tests.daemon import Connection, DaemonProcess
from tests.events_seen import cursor_now, events_after, wait_for_step
from tests.images import place_guest_images
from tests.instances import TIMEOUT_S, finished, small_spec, spawned
from tests.libvirt.guests import begin_to_spawn, instance_of, pause, power_on, unpause
from tests.libvirtd import LibvirtdHost
from tests.refusals import refused

pytestmark = [pytest.mark.libvirt, pytest.mark.timeout(180)]
PROGRAM = (sys.executable, "-m", "service.main")
METRICS_PORT = free_port()
VOLUME_ID = "5b1e9c34-40f5-4b53-8f6e-2c1d5a7e9b10"
PROMPT_S = 2.0
NOTICED_S = 20.0
LOST = event_pb2.EVENT_TYPE_HYPERVISOR_DISCONNECTED
FOUND = event_pb2.EVENT_TYPE_HYPERVISOR_CONNECTED
RESYNC = event_pb2.EVENT_TYPE_RESYNC


@contextmanager
def daemon_in(host: LibvirtdHost, folder: Path, *more: str) -> Iterator[DaemonProcess]:
    """A daemon that drives a host's libvirtd, in that host; not started yet."""
    program = (*host.inside, *PROGRAM)
    arguments = ("--libvirt-uri=qemu:///system", f"--volume-dir={folder}/volumes", *more)
    with DaemonProcess(folder, backend="libvirt", arguments=arguments, program=program) as made:
        made.volume_dir.mkdir()
        place_guest_images(made.image_dir)
        yield made


@pytest.fixture(scope="module")
def daemon(libvirtd: LibvirtdHost, short_folder: Callable[[], Path]) -> Iterator[DaemonProcess]:
    metrics = f"--metrics=127.0.0.1:{METRICS_PORT}"
    with daemon_in(libvirtd, short_folder(), metrics) as made:
        yield made.start()


@pytest.fixture(scope="module")
def guest(daemon: DaemonProcess) -> Iterator[str]:
    """The id of a guest that all tests here share."""
    with daemon.connect() as connection:
        spec = small_spec(backend="libvirt", name="shared")
        with spawned(connection, spec) as instance_id:
            yield instance_id


def seen_until(
    connection: Connection, cursor: EventCursor, kind: "EventType.ValueType"
) -> list[Event]:
    """The connection's events after a cursor, up to one of this type."""
    events = events_after(connection, cursor, until=lambda event: event.type == kind)
    return [event for event in events if event.type in (LOST, FOUND, RESYNC)]


def is_stale(connection: Connection, instance_id: str) -> bool:
    """Whether facts are told to be stale; they are told in time in any case."""
    request = instance_pb2.GetInstanceRequest(instance_id=instance_id)
    reply = connection.instances.GetInstance(request, timeout=PROMPT_S)
    assert reply.instance.power_state != PowerState.POWER_STATE_UNSPECIFIED
    listing = connection.instances.ListInstances(
        instance_pb2.ListInstancesRequest(), timeout=PROMPT_S
    )
    assert listing.total_count >= 1
    assert listing.freshness.stale == reply.freshness.stale
    return bool(reply.freshness.stale)


def assert_only_instances_do_not_serve(connection: Connection) -> None:
    """What health says, in time in any case."""
    stub = health_pb2_grpc.HealthStub(connection.channel)
    whole = stub.Check(health_pb2.HealthCheckRequest(), timeout=PROMPT_S)
    assert whole.status == health_pb2.HealthCheckResponse.SERVING
    instances = health_pb2.HealthCheckRequest(service="virtrpc.v1.InstanceService")
    for reply in stub.Watch(instances, timeout=PROMPT_S):
        if reply.status == health_pb2.HealthCheckResponse.NOT_SERVING:
            return


def metrics() -> list[str]:
    """The lines that Prometheus is given, in time in any case."""
    with urlopen(f"http://127.0.0.1:{METRICS_PORT}/metrics", timeout=PROMPT_S) as reply:
        return bytes(reply.read()).decode().splitlines()


def assert_refused_promptly(connection: Connection, instance_id: str) -> None:
    """A mutation that cannot be done now is refused now."""
    with refused(grpc.StatusCode.UNAVAILABLE, "HYPERVISOR_UNREACHABLE") as refusal:
        connection.instances.PauseInstance(
            instance_pb2.PauseInstanceRequest(instance_id=instance_id), timeout=PROMPT_S
        )
    assert refusal.retry_delay_s


def assert_works(connection: Connection, instance_id: str) -> None:
    """Facts are fresh, mutations are done and their events are told."""
    cursor = cursor_now(connection)
    assert not is_stale(connection, instance_id)
    pause(connection, instance_id)
    unpause(connection, instance_id)
    assert instance_of(connection, instance_id).power_state == PowerState.POWER_STATE_RUNNING
    events_after(connection, cursor, until=lambda event: event.type == event_pb2.EVENT_TYPE_RESUMED)


def descriptors(daemon: DaemonProcess) -> int:
    assert daemon.process is not None
    return psutil.Process(daemon.process.pid).num_fds()


def test_killed_libvirtd_is_told_and_so_is_its_return(
    libvirtd: LibvirtdHost, guest: str, connection: Connection
) -> None:
    cursor = cursor_now(connection)
    libvirtd.kill()
    lost = seen_until(connection, cursor, LOST)
    assert [event.type for event in lost] == [LOST]
    assert is_stale(connection, guest)
    assert_refused_promptly(connection, guest)
    libvirtd.start()
    found = seen_until(connection, lost[-1].cursor, RESYNC)
    assert [event.type for event in found] == [FOUND, RESYNC]
    assert_works(connection, guest)


def test_guest_that_is_changed_meanwhile_is_read_anew(
    libvirtd: LibvirtdHost, guest: str, connection: Connection
) -> None:
    started_at = instance_of(connection, guest).started_at
    cursor = cursor_now(connection)
    libvirtd.kill()
    seen_until(connection, cursor, LOST)
    (process,) = libvirtd.guests
    process.kill()
    libvirtd.start()
    seen_until(connection, cursor, FOUND)
    assert instance_of(connection, guest).power_state in (
        PowerState.POWER_STATE_CRASHED,
        PowerState.POWER_STATE_SHUTDOWN,
    )
    power_on(connection, guest)
    assert instance_of(connection, guest).started_at.ToNanoseconds() > started_at.ToNanoseconds()


def test_libvirtd_that_restarts_often_costs_no_descriptor(
    libvirtd: LibvirtdHost, guest: str, daemon: DaemonProcess, connection: Connection
) -> None:
    counts = []
    for _ in range(4):
        cursor = cursor_now(connection)
        libvirtd.kill()
        libvirtd.start()
        seen_until(connection, cursor, FOUND)
        assert not is_stale(connection, guest)
        counts.append(descriptors(daemon))
    assert counts[-1] <= counts[0]


def test_frozen_libvirtd_is_noticed_and_holds_up_no_read(
    libvirtd: LibvirtdHost, guest: str, daemon: DaemonProcess, connection: Connection
) -> None:
    cursor = cursor_now(connection)
    fresh = instance_pb2.GetInstanceRequest(instance_id=guest, fresh=True)
    with ThreadPoolExecutor() as pool:
        libvirtd.freeze()
        try:
            frozen_at = time.monotonic()
            hanging: list[Future[Any]] = [
                pool.submit(pause, connection, guest),
                *(pool.submit(connection.instances.GetInstance, fresh) for _ in range(3)),
            ]
            assert not is_stale(connection, guest)
            seen_until(connection, cursor, LOST)
            assert time.monotonic() - frozen_at < NOTICED_S
            assert is_stale(connection, guest)
            assert_refused_promptly(connection, guest)
            assert_only_instances_do_not_serve(connection)
            assert "virtrpc_hypervisor_connected 0.0" in metrics()
            for call in hanging:
                with refused(grpc.StatusCode.UNAVAILABLE, "HYPERVISOR_UNREACHABLE"):
                    call.result(timeout=NOTICED_S)
            assert connection.hosts.GetHost(
                host_pb2.GetHostRequest(), timeout=PROMPT_S
            ).freshness.stale
        finally:
            libvirtd.thaw()
    seen_until(connection, cursor, FOUND)
    assert_works(connection, guest)
    assert "virObject" not in daemon.log(), "libvirt used what was freed"


def test_thread_that_comes_when_libvirtd_is_frozen_gives_up(
    libvirtd: LibvirtdHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handles, "_OPEN_TIMEOUT_S", 0.2)
    start_event_loop()
    opened = handles.Handles(libvirtd.uri)
    libvirtd.freeze()
    try:
        with pytest.raises(UnreachableError):
            _ = opened.own
    finally:
        libvirtd.thaw()
    assert opened.own.isAlive()


def test_spawn_during_which_libvirtd_dies_is_rolled_back(
    libvirtd: LibvirtdHost, guest: str, daemon: DaemonProcess, connection: Connection
) -> None:
    folders = set((daemon.state_dir / "instances").iterdir())
    cursor = cursor_now(connection)
    operation = begin_to_spawn(connection, small_spec(backend="libvirt", name="unlucky"))
    wait_for_phase(connection, operation, "start")
    libvirtd.kill()
    seen_until(connection, cursor, LOST)
    libvirtd.start()
    assert finished(connection, operation).error.reason == "HYPERVISOR_UNREACHABLE"
    listing = connection.instances.ListInstances(
        instance_pb2.ListInstancesRequest(), timeout=TIMEOUT_S
    )
    assert [instance.instance_id for instance in listing.instances] == [guest]
    assert set((daemon.state_dir / "instances").iterdir()) == folders
    assert len(libvirtd.guests) == 1


def test_attach_during_which_libvirtd_dies_is_done_or_rolled_back(
    libvirtd: LibvirtdHost, guest: str, daemon: DaemonProcess, connection: Connection
) -> None:
    """QEMU is stopped meanwhile: libvirtd waits for it, in the midst of the attach, and dies."""
    (daemon.volume_dir / "unlucky").write_bytes(bytes(1 << 20))
    request = volume_pb2.AttachVolumeRequest(instance_id=guest)
    request.device.volume.volume_id = VOLUME_ID
    request.device.volume.local_file.path = str(daemon.volume_dir / "unlucky")
    cursor = cursor_now(connection)
    (machine,) = libvirtd.guests
    attaching = connection.volumes.AttachVolume.future(request, timeout=TIMEOUT_S)
    operation = wait_for_step(connection, cursor, "AttachVolume")
    machine.suspend()
    libvirtd.kill()
    machine.resume()
    seen_until(connection, cursor, LOST)
    libvirtd.start()
    seen_until(connection, cursor, FOUND)
    if finished(connection, operation).HasField("error"):
        with refused(grpc.StatusCode.UNAVAILABLE, "HYPERVISOR_UNREACHABLE"):
            attaching.result(timeout=TIMEOUT_S)
        assert volumes(connection, guest) == ([], [])
    connection.volumes.AttachVolume(request, timeout=TIMEOUT_S)
    assert volumes(connection, guest) == ([VOLUME_ID], [VOLUME_ID])
    assert_works(connection, guest)


def volumes(connection: Connection, instance_id: str) -> tuple[list[str], list[str]]:
    """Volumes of an instance: of its definition, and of its running machine."""
    request = instance_pb2.GetInstanceRequest(instance_id=instance_id, fresh=True)
    instance = connection.instances.GetInstance(request, timeout=TIMEOUT_S).instance
    machines = (instance.persistent, instance.effective)
    of_both = [[disk.volume_id for disk in each.disks if disk.volume_id] for each in machines]
    return of_both[0], of_both[1]


def wait_for_phase(connection: Connection, operation: Operation, phase: str) -> None:
    """Returns when an operation that has not ended is in this phase."""
    request = operation_pb2.WatchOperationRequest(operation_id=operation.operation_id)
    stream = connection.operations.WatchOperation(request, timeout=TIMEOUT_S)
    for response in stream:
        assert not response.operation.done
        if response.operation.phase == phase:
            stream.cancel()
            return


def test_daemon_that_starts_before_libvirtd_connects_to_it_later(
    short_folder: Callable[[], Path],
) -> None:
    host = LibvirtdHost(short_folder(), name="late")
    try:
        with daemon_in(host, short_folder()) as daemon:
            daemon.start(wait=False)
            with daemon.connect() as connection:
                request = host_pb2.GetHostRequest()
                reply = connection.hosts.GetHost(request, timeout=TIMEOUT_S, wait_for_ready=True)
                assert reply.freshness.stale
                assert reply.host.connection.state != host_pb2.HYPERVISOR_CONNECTION_STATE_CONNECTED
                with refused(grpc.StatusCode.UNAVAILABLE, "STARTING"):
                    pause(connection, "0f9a5c1e-6d2b-4c8e-9d55-3b1f0a2c7e44")
                host.start()
                daemon.wait_ready()
                assert not connection.hosts.GetHost(request, timeout=TIMEOUT_S).freshness.stale
    finally:
        host.close()


def test_daemon_of_a_frozen_libvirtd_stops_when_told(
    libvirtd: LibvirtdHost, short_folder: Callable[[], Path]
) -> None:
    with daemon_in(libvirtd, short_folder()) as daemon:
        daemon.start()
        libvirtd.freeze()
        try:
            assert daemon.stop() == 0
        finally:
            libvirtd.thaw()
