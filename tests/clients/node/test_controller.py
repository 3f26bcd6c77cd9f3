"""The TypeScript controller does the main job against a real daemon, and fails readably."""

import re
import signal
import uuid
from pathlib import Path

import grpc
import pytest
from virtrpc.v1.event_pb2 import EventCursor, EventType, WatchEventsRequest
from virtrpc.v1.instance_pb2 import (
    DestroyInstanceRequest,
    GetInstanceRequest,
    InstanceView,
    ListInstancesRequest,
    PauseInstanceRequest,
    SpawnInstanceRequest,
    UnpauseInstanceRequest,
)
from virtrpc.v1.operation_pb2 import OperationState, WaitOperationRequest
from virtrpc.v1.spec_pb2 import Flavor, ImageSource, InstanceSpec

from tests.clients.node.conftest import NODE_CLIENT, StartController
from tests.daemon import Connection, DaemonProcess

# The first test also installs and builds.
pytestmark = pytest.mark.timeout(300)
TOO_MANY_EVENTS = 5_000  # for a watcher's queue and all buffers before it
FIRST_EXIT_CODE = 64


def test_spawns_follows_the_console_and_destroys(
    daemon: DaemonProcess, start_controller: StartController
) -> None:
    controller = start_controller("--image", "demo", "--until", "guest ready .* uptime")
    assert controller.exit_code() == 0, controller.output()
    lifecycle = [kind for _, kind in controller.events() if kind != "OPERATION"]
    assert lifecycle == ["CREATED", "STARTED", "STOPPED", "DELETED"]
    assert any(line.startswith("operation") and "100%" in line for line in controller.lines)
    assert any(re.match("console +virtrpc guest ready", line) for line in controller.lines)
    assert _instance_ids(daemon) == []


def test_spawns_from_a_kernel_and_destroys_when_interrupted(
    daemon: DaemonProcess, start_controller: StartController
) -> None:
    for name in ("vmlinuz", "initrd"):
        (daemon.image_dir / name).write_bytes(b"boots")
    controller = start_controller(
        "--kernel=vmlinuz", "--ramdisk=initrd", "--kernel-args=quiet", "--memory=128",
        "--until=never printed",
    )  # fmt: skip
    instance_id = controller.printed("^instance").split()[1]
    with daemon.connect() as connection:
        view = InstanceView.INSTANCE_VIEW_FULL
        request = GetInstanceRequest(instance_id=instance_id, view=view)
        spec = connection.instances.GetInstance(request).instance.spec
    assert spec.flavor.memory_mib == 128
    assert (spec.image.kernel_image_id, spec.image.ramdisk_image_id) == ("vmlinuz", "initrd")
    assert spec.image.kernel_args == "quiet"
    controller.send(signal.SIGINT)
    assert controller.exit_code() == 130, controller.output()
    assert _instance_ids(daemon) == []


def test_console_that_never_says_it_is_given_up(
    daemon: DaemonProcess, start_controller: StartController
) -> None:
    controller = start_controller("--image=demo", "--until=never printed", "--timeout=1")
    assert controller.exit_code() == 1
    assert "/never printed/ did not appear in 1 s" in controller.errors
    assert _instance_ids(daemon) == []


def test_unknown_image_is_told_with_reason_and_field(start_controller: StartController) -> None:
    controller = start_controller("--image=nope")
    assert controller.exit_code() == FIRST_EXIT_CODE + grpc.StatusCode.NOT_FOUND.value[0]
    assert "NOT_FOUND / IMAGE_NOT_FOUND" in controller.errors
    assert "  spec.image.image_id: " in controller.errors
    assert "  image_id = nope" in controller.errors


def test_invalid_request_is_told_with_every_field(start_controller: StartController) -> None:
    controller = start_controller("--image=demo", "--memory=0", "--name=-x")
    assert controller.exit_code() == FIRST_EXIT_CODE + grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert "INVALID_ARGUMENT / INVALID_REQUEST" in controller.errors
    assert "  spec.flavor.memory_mib: " in controller.errors
    assert "  spec.name: " in controller.errors


def test_failed_operation_is_told_as_a_refusal(script: Path, tmp_path: Path) -> None:
    pytest.fail("to be written")


def test_daemon_out_of_reach_is_told_at_once(
    daemon: DaemonProcess, start_controller: StartController
) -> None:
    daemon.stop()
    controller = start_controller("--image=demo")
    assert controller.exit_code() == FIRST_EXIT_CODE + grpc.StatusCode.UNAVAILABLE.value[0]
    assert "UNAVAILABLE" in controller.errors


@pytest.mark.parametrize("arguments", [(), ("--nope",), ("--image=demo", "--until=(")])
def test_wrong_command_line_exits_with_2(
    start_controller: StartController, arguments: tuple[str, ...]
) -> None:
    controller = start_controller(*arguments)
    assert controller.exit_code() == 2
    assert "Usage: node dist/controller.js" in controller.errors


def test_watch_goes_on_over_a_restart_of_the_daemon(
    daemon: DaemonProcess, start_controller: StartController
) -> None:
    controller = start_controller("--watch")
    controller.printed("SNAPSHOT_END")
    with daemon.connect() as connection:
        _spawn(connection)
    assert daemon.stop() == 0
    daemon.start()
    with daemon.connect() as connection:
        # These happen while the controller still waits to come back.
        _destroy(connection, _spawn(connection))
        truth = _logged_events(connection)
    controller.printed(f"#{truth[-1][0]} ")
    controller.send(signal.SIGINT)
    assert controller.exit_code() == 0, controller.output()
    assert any("SHUTTING_DOWN" in line for line in controller.lines if line.startswith("retry"))
    _assert_same_events(controller.events(), truth)


def test_watch_goes_on_when_it_was_too_slow(
    daemon: DaemonProcess, start_controller: StartController
) -> None:
    controller = start_controller("--watch")
    controller.printed("SNAPSHOT_END")
    with daemon.connect() as connection:
        instance_id = _spawn(connection)
        controller.send(signal.SIGSTOP)
        while len(_logged_events(connection)) < TOO_MANY_EVENTS:
            for _ in range(100):
                connection.instances.PauseInstance(PauseInstanceRequest(instance_id=instance_id))
                connection.instances.UnpauseInstance(
                    UnpauseInstanceRequest(instance_id=instance_id)
                )
        truth = _logged_events(connection)
        controller.send(signal.SIGCONT)
        controller.printed(f"#{truth[-1][0]} ")
    controller.send(signal.SIGTERM)
    assert controller.exit_code() == 0, controller.output()
    assert any("WATCHER_TOO_SLOW" in line for line in controller.lines if line.startswith("retry"))
    _assert_same_events(controller.events(), truth)


def test_lock_file_names_no_registry() -> None:
    assert '"resolved"' not in (NODE_CLIENT / "package-lock.json").read_text()


def _spawn(connection: Connection) -> str:
    instance_id = str(uuid.uuid4())
    spec = InstanceSpec(
        flavor=Flavor(vcpus=1, memory_mib=64), image=ImageSource(image_id="demo")
    )
    operation = connection.instances.SpawnInstance(
        SpawnInstanceRequest(instance_id=instance_id, spec=spec)
    )
    ended = connection.operations.WaitOperation(
        WaitOperationRequest(operation_id=operation.operation_id)
    )
    assert ended.state == OperationState.OPERATION_STATE_SUCCEEDED
    return instance_id


def _destroy(connection: Connection, instance_id: str) -> None:
    connection.instances.DestroyInstance(DestroyInstanceRequest(instance_id=instance_id))


def _instance_ids(daemon: DaemonProcess) -> list[str]:
    with daemon.connect() as connection:
        listed = connection.instances.ListInstances(ListInstancesRequest()).instances
    return [instance.instance_id for instance in listed]


def _logged_events(connection: Connection) -> list[tuple[int, str]]:
    """Sequence and type of every event of the daemon's log, up to now."""
    request = WatchEventsRequest(snapshot=True)
    first = next(iter(connection.events.WatchEvents(request, timeout=10))).event
    request = WatchEventsRequest(after=EventCursor(epoch=first.cursor.epoch, sequence=0))
    request.heartbeat.FromMilliseconds(100)
    events = []
    for response in connection.events.WatchEvents(request, timeout=30):
        if response.event.type == EventType.EVENT_TYPE_HEARTBEAT:
            break
        kind = EventType.Name(response.event.type).removeprefix("EVENT_TYPE_")
        events.append((response.event.cursor.sequence, kind))
    return events


def _assert_same_events(seen: list[tuple[int, str]], truth: list[tuple[int, str]]) -> None:
    """From the first one seen on: none is missing, none is repeated, none is out of order."""
    first = seen[0][0]
    assert seen == [event for event in truth if event[0] >= first]
