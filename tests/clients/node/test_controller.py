"""The TypeScript controller does the main job against a real daemon, and fails readably."""

import re
import signal

import grpc
import pytest
from virtrpc.v1.instance_pb2 import GetInstanceRequest, InstanceView, ListInstancesRequest

from tests.clients.node.conftest import NODE_CLIENT, StartController
from tests.conftest import MakeDaemon
from tests.daemon import Connection, DaemonProcess
from tests.images import guest_cmdline

# The first test also installs and builds.
pytestmark = pytest.mark.timeout(300)


def exit_code_of(status: grpc.StatusCode) -> int:
    """The controller's exit code for a call that ended so."""
    number: int = status.value[0]
    return 64 + number


def instance_ids(connection: Connection) -> list[str]:
    """What is on the host."""
    listed = connection.instances.ListInstances(ListInstancesRequest())
    return [instance.instance_id for instance in listed.instances]


def test_spawns_follows_the_console_and_destroys(
    daemon: DaemonProcess, connection: Connection, start_controller: StartController
) -> None:
    kernel_args = guest_cmdline() if daemon.backend == "libvirt" else "quiet"
    controller = start_controller(
        daemon, "--kernel=kernel", "--ramdisk=ramdisk", f"--kernel-args={kernel_args}",
        "--memory=96", "--name=node", "--until=virtrpc guest ready",
    )  # fmt: skip
    instance_id = controller.line("^instance").split()[1]
    assert controller.exit_code() == 0, controller.output()
    lifecycle = [kind for _, kind in controller.events() if kind != "OPERATION"]
    assert lifecycle == ["CREATED", "STARTED", "STOPPED", "DELETED"]
    assert any(line.startswith("operation") and "100%" in line for line in controller.lines)
    assert any(re.match("console +virtrpc guest ready", line) for line in controller.lines)
    assert instance_id not in instance_ids(connection)


def test_unknown_image_is_told_with_reason_and_field(
    daemon: DaemonProcess, start_controller: StartController
) -> None:
    controller = start_controller(daemon, "--image=nope")
    assert controller.exit_code() == exit_code_of(grpc.StatusCode.NOT_FOUND)
    assert "NOT_FOUND / IMAGE_NOT_FOUND" in controller.errors
    assert "  spec.image.image_id: " in controller.errors
    assert "  image_id = nope" in controller.errors


def test_invalid_request_is_told_with_every_field(
    daemon: DaemonProcess, start_controller: StartController
) -> None:
    controller = start_controller(daemon, "--image=guest", "--memory=0", "--name=-x")
    assert controller.exit_code() == exit_code_of(grpc.StatusCode.INVALID_ARGUMENT)
    assert "INVALID_ARGUMENT / INVALID_REQUEST" in controller.errors
    assert "  spec.flavor.memory_mib: " in controller.errors
    assert "  spec.name: " in controller.errors


def test_failed_operation_is_told_as_a_refusal_is(
    make_daemon: MakeDaemon, start_controller: StartController
) -> None:
    daemon = make_daemon("--fake-faults=spawn_instance.start=fail").start()
    controller = start_controller(daemon, "--image=guest")
    assert controller.exit_code() == exit_code_of(grpc.StatusCode.INTERNAL)
    assert "INTERNAL / HYPERVISOR_ERROR" in controller.errors
    assert any("SpawnInstance ROLLING_BACK" in line for line in controller.lines)


def test_instance_is_as_asked_and_destroyed_when_interrupted(
    make_daemon: MakeDaemon, start_controller: StartController
) -> None:
    daemon = make_daemon().start()
    controller = start_controller(
        daemon, "--kernel=kernel", "--ramdisk=ramdisk", "--kernel-args=quiet",
        "--memory=128", "--vcpus=2", "--name=one", "--until=never printed",
    )  # fmt: skip
    instance_id = controller.line("^instance").split()[1]
    with daemon.connect() as connection:
        view = InstanceView.INSTANCE_VIEW_FULL
        request = GetInstanceRequest(instance_id=instance_id, view=view)
        spec = connection.instances.GetInstance(request).instance.spec
        assert (spec.name, spec.flavor.memory_mib, spec.flavor.vcpus) == ("one", 128, 2)
        assert spec.image.kernel_image_id == "kernel"
        assert spec.image.ramdisk_image_id == "ramdisk"
        assert spec.image.kernel_args == "quiet"
        controller.send(signal.SIGINT)
        assert controller.exit_code() == 130, controller.output()
        assert instance_ids(connection) == []


def test_console_that_never_says_it_is_given_up(
    make_daemon: MakeDaemon, start_controller: StartController
) -> None:
    daemon = make_daemon().start()
    controller = start_controller(daemon, "--image=guest", "--until=never printed", "--timeout=1")
    assert controller.exit_code() == 1
    assert "/never printed/ did not appear in 1 s" in controller.errors
    with daemon.connect() as connection:
        assert instance_ids(connection) == []


def test_daemon_out_of_reach_is_told_at_once(
    make_daemon: MakeDaemon, start_controller: StartController
) -> None:
    controller = start_controller(make_daemon(), "--image=guest")
    assert controller.exit_code() == exit_code_of(grpc.StatusCode.UNAVAILABLE)
    assert "UNAVAILABLE" in controller.errors


@pytest.mark.parametrize("arguments", [(), ("--nope",), ("--image=guest", "--until=(")])
def test_wrong_command_line_exits_with_2(
    make_daemon: MakeDaemon, start_controller: StartController, arguments: tuple[str, ...]
) -> None:
    controller = start_controller(make_daemon(), *arguments)
    assert controller.exit_code() == 2
    assert "Usage: node dist/controller.js" in controller.errors


def test_lock_file_names_no_registry() -> None:
    assert '"resolved"' not in (NODE_CLIENT / "package-lock.json").read_text()
