"""The files that libvirt keeps of machines: when they started, and that nothing stays.

The driver's folder is a deep one, so that its sockets need the short way to it.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from virtrpc.v1 import event_pb2
from virtrpc.v1.spec_pb2 import InstanceSpec
from virtrpc.v1.types_pb2 import PowerState

from tests.daemon import Connection, DaemonProcess
from tests.events_seen import cursor_now, events_after
from tests.images import place_guest_images
from tests.instances import small_spec, spawned
from tests.libvirt.guests import instance_of, pause, power_off, power_on, try_to_spawn, unpause

pytestmark = pytest.mark.libvirt
NAME = "machine-files"


@pytest.fixture(scope="module")
def daemon(short_folder: Callable[[], Path]) -> Iterator[DaemonProcess]:
    folder = short_folder()
    root = folder / "state" / ("deep" * 15)
    arguments = (f"--libvirt-uri=qemu:///embed?root={root}",)
    with DaemonProcess(folder, backend="libvirt", arguments=arguments) as started:
        place_guest_images(started.image_dir)
        yield started.start()


@pytest.fixture
def instance_id(connection: Connection) -> Iterator[str]:
    """An instance that was just started."""
    with spawned(connection, small_spec(backend="libvirt", name=NAME)) as made:
        yield made


def files_below(folder: Path) -> set[Path]:
    """All files, but for what the driver keeps of the emulators and of itself."""
    cached = ("cache", "images")
    return {
        path
        for path in folder.rglob("*")
        if path.is_file() and not set(cached) & set(path.relative_to(folder).parts)
    }


def test_instance_tells_when_it_was_last_started(connection: Connection, instance_id: str) -> None:
    first = instance_of(connection, instance_id)
    assert 0 <= first.started_at.ToNanoseconds() - first.created_at.ToNanoseconds() < 20e9
    power_off(connection, instance_id)
    assert not instance_of(connection, instance_id).HasField("started_at")
    asked_ns = time.time_ns()
    power_on(connection, instance_id)
    second = instance_of(connection, instance_id)
    assert second.started_at.ToNanoseconds() >= asked_ns - 10_000_000  # the kernel's clock tick
    assert second.created_at == first.created_at


def test_next_daemon_tells_the_same_start_and_hears_the_guest_resume(
    daemon: DaemonProcess, connection: Connection, instance_id: str
) -> None:
    pause(connection, instance_id)
    before = instance_of(connection, instance_id)
    assert before.power_state == PowerState.POWER_STATE_PAUSED
    daemon.kill()
    daemon.start()
    assert instance_of(connection, instance_id).started_at == before.started_at
    cursor = cursor_now(connection)
    unpause(connection, instance_id)
    events_after(connection, cursor, until=lambda event: event.type == event_pb2.EVENT_TYPE_RESUMED)


def test_destroyed_instance_leaves_no_file(daemon: DaemonProcess, connection: Connection) -> None:
    before = files_below(daemon.state_dir)
    with spawned(connection, small_spec(backend="libvirt", name=NAME)):
        names = {path.name for path in files_below(daemon.state_dir) - before}
        assert {f"{NAME}.log", f"{NAME}.xml", f"{NAME}.pid"} <= names
    assert files_below(daemon.state_dir) == before


def no_machine(spec: InstanceSpec) -> None:
    spec.machine.machine_type = "nosuch"


def no_cpu(spec: InstanceSpec) -> None:
    spec.machine.cpu_model = "nosuch"


def no_device(spec: InstanceSpec) -> None:
    interface = spec.interfaces.add(port_id="aaaaaaaa-0000-4000-8000-000000000001", model="nosuch")
    interface.user.SetInParent()


@pytest.mark.parametrize("spoil", [no_machine, no_cpu, no_device])
def test_spawn_that_libvirt_or_qemu_refuses_leaves_no_file(
    spoil: Callable[[InstanceSpec], None], daemon: DaemonProcess, connection: Connection
) -> None:
    before = files_below(daemon.state_dir)
    spec = small_spec(backend="libvirt", name=NAME)
    spoil(spec)
    assert try_to_spawn(connection, spec).error.reason
    assert files_below(daemon.state_dir) == before
