"""The TypeScript controller's streams go on where they were cut off: none missed, none repeated."""

import re
import signal
import uuid

import pytest
from virtrpc.v1.event_pb2 import EventCursor, EventType
from virtrpc.v1.instance_pb2 import (
    DestroyInstanceRequest,
    PauseInstanceRequest,
    SpawnInstanceRequest,
    UnpauseInstanceRequest,
)
from virtrpc.v1.operation_pb2 import OperationState, WaitOperationRequest
from virtrpc.v1.spec_pb2 import Flavor, ImageSource, InstanceSpec

from tests.clients.node.conftest import StartController
from tests.clients.node.controller import Controller
from tests.conftest import MakeDaemon
from tests.daemon import Connection
from tests.events_seen import cursor_now, events_after
from tests.images import guest_cmdline

pytestmark = pytest.mark.timeout(300)
TOO_MANY_EVENTS = 3_000  # for a watcher's queue and all buffers before it
COUNT_AT_RESTART, LAST_COUNT = 5, 30  # 0.2 s each


def test_watch_goes_on_over_a_restart_of_the_daemon(
    make_daemon: MakeDaemon, start_controller: StartController
) -> None:
    daemon = make_daemon().start()
    controller = start_controller(daemon, "--watch")
    controller.line("SNAPSHOT_END")
    with daemon.connect() as connection:
        _spawn(connection)
    assert daemon.stop() == 0
    daemon.start()
    with daemon.connect() as connection:
        # These happen while the controller still waits to come back.
        instance_id = _spawn(connection)
        connection.instances.DestroyInstance(DestroyInstanceRequest(instance_id=instance_id))
        _assert_sees_all(controller, connection)
    controller.send(signal.SIGINT)
    assert controller.exit_code() == 0, controller.output()
    assert "SHUTTING_DOWN" in "".join(controller.lines)


def test_watch_goes_on_when_it_was_too_slow(
    make_daemon: MakeDaemon, start_controller: StartController
) -> None:
    daemon = make_daemon().start()
    controller = start_controller(daemon, "--watch")
    controller.line("SNAPSHOT_END")
    with daemon.connect() as connection:
        instance_id = _spawn(connection)
        controller.send(signal.SIGSTOP)
        while cursor_now(connection).sequence < TOO_MANY_EVENTS:
            connection.instances.PauseInstance(PauseInstanceRequest(instance_id=instance_id))
            connection.instances.UnpauseInstance(UnpauseInstanceRequest(instance_id=instance_id))
        controller.send(signal.SIGCONT)
        _assert_sees_all(controller, connection)
    controller.send(signal.SIGTERM)
    assert controller.exit_code() == 0, controller.output()
    assert "WATCHER_TOO_SLOW" in "".join(controller.lines)


@pytest.mark.libvirt
def test_instance_is_controlled_over_a_restart_of_the_daemon(
    make_daemon: MakeDaemon, start_controller: StartController
) -> None:
    daemon = make_daemon(backend="libvirt").start()
    controller = start_controller(
        daemon, "--kernel=kernel", "--ramdisk=ramdisk", "--memory=96", "--name=node",
        f"--kernel-args={guest_cmdline()} virtrpc.counter=1", f"--until=count {LAST_COUNT}$",
    )  # fmt: skip
    controller.line(f"^console.*count {COUNT_AT_RESTART}$")
    assert daemon.stop() == 0
    daemon.start()
    assert controller.exit_code() == 0, controller.output()
    assert any(re.match("retry +StreamConsoleOutput", line) for line in controller.lines)
    counts = re.findall(r"^console.*count (\d+)$", "\n".join(controller.lines), re.MULTILINE)
    assert counts == [str(number) for number in range(1, LAST_COUNT + 1)]
    assert controller.events()[-1][1] == "DELETED"


def _assert_sees_all(controller: Controller, connection: Connection) -> None:
    """The controller prints the same events, in order and each once, as are in the log."""
    now = cursor_now(connection)
    controller.line(f"#{now.sequence} ")
    seen = controller.events()
    after = EventCursor(epoch=now.epoch, sequence=seen[0][0] - 1)
    logged = events_after(connection, after, until=lambda e: e.cursor.sequence >= now.sequence)
    assert seen == [(e.cursor.sequence, _short(e.type)) for e in logged]


def _short(kind: "EventType.ValueType") -> str:
    return EventType.Name(kind).removeprefix("EVENT_TYPE_")


def _spawn(connection: Connection) -> str:
    instance_id = str(uuid.uuid4())
    spec = InstanceSpec(flavor=Flavor(vcpus=1, memory_mib=64), image=ImageSource(image_id="guest"))
    operation = connection.instances.SpawnInstance(
        SpawnInstanceRequest(instance_id=instance_id, spec=spec)
    )
    ended = connection.operations.WaitOperation(
        WaitOperationRequest(operation_id=operation.operation_id)
    )
    assert ended.state == OperationState.OPERATION_STATE_SUCCEEDED
    return instance_id
