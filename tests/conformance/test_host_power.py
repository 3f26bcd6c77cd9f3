"""The host's own power: refused unless configured, and then by a command of the configuration."""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from virtrpc.v1 import host_pb2 as pb
from virtrpc.v1 import instance_pb2, operation_pb2

from tests.conformance.conftest import Guest
from tests.conftest import MakeDaemon
from tests.daemon import Connection, DaemonProcess
from tests.events_seen import cursor_now, events_after
from tests.instances import TIMEOUT_S, small_spec, spawned
from tests.refusals import refused

PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION
SHUTDOWN, REBOOT = pb.HOST_POWER_SHUTDOWN, pb.HOST_POWER_REBOOT
SAYS = "import sys, pathlib; pathlib.Path(sys.argv[1]).write_text(sys.argv[2])"


def power(
    connection: Connection, action: "pb.HostPower.ValueType", **fields: object
) -> pb.HostPowerActionResponse:
    request = pb.HostPowerActionRequest(action=action, **fields)  # type: ignore[arg-type]
    return connection.hosts.HostPowerAction(request, timeout=TIMEOUT_S)


def words(flag: str, *command: object) -> list[str]:
    """A command as flags, one for each word."""
    return [f"--{flag}={word}" for word in command]


@pytest.mark.usefixtures("running_guest")
def test_power_of_a_host_that_is_not_configured_for_it_is_refused(connection: Connection) -> None:
    for fields in ({"validate_only": True}, {}):
        with refused(PRECONDITION, "BLOCKED") as refusal:
            power(connection, REBOOT, **fields)
        assert refusal.preconditions == ["HOST_POWER_NOT_ALLOWED", "INSTANCES_RUNNING"]
    with refused(PRECONDITION, "HOST_POWER_NOT_ALLOWED"):
        power(connection, SHUTDOWN, force=True)


def test_unknown_action_is_refused(connection: Connection, guest: Guest) -> None:
    assert guest.instance_id
    with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST") as refusal:
        power(connection, pb.HOST_POWER_UNSPECIFIED)
    assert refusal.fields == ["action"]


@pytest.fixture
def said(tmp_path: Path) -> Path:
    """What the commands of `powerful` leave here."""
    return tmp_path / "it's; $(said)"


@pytest.fixture
def powerful(make_daemon: MakeDaemon, said: Path) -> DaemonProcess:
    """A daemon whose host has commands that do no harm."""
    return make_daemon(
        "--allow-host-power",
        *words("host-shutdown-command", sys.executable, "-c", SAYS, said, "a b; c"),
        *words("host-reboot-command", sys.executable, "-c", "print('no'); raise SystemExit(3)"),
    ).start()


def test_command_is_run_once_and_without_a_shell(powerful: DaemonProcess, said: Path) -> None:
    with powerful.connect() as connection:
        assert power(connection, pb.HOST_POWER_STARTUP).already_done
        power(connection, SHUTDOWN, validate_only=True)
        assert not said.exists()
        assert not power(connection, SHUTDOWN, request_id="r").already_done
        assert said.read_text() == "a b; c"
        said.unlink()
        power(connection, SHUTDOWN, request_id="r")
        assert not said.exists()
        with refused(grpc.StatusCode.INTERNAL, "HOST_POWER_FAILED") as refusal:
            power(connection, REBOOT)
        assert refusal.metadata["exit_code"] == "3"
        with spawned(connection, small_spec(backend="fake")) as instance_id:
            with refused(PRECONDITION, "INSTANCES_RUNNING") as refusal:
                power(connection, SHUTDOWN)
            assert refusal.metadata["instances"] == "1"
            power(connection, SHUTDOWN, force=True)
            connection.instances.GetInstance(
                instance_pb2.GetInstanceRequest(instance_id=instance_id)
            )
        listed = connection.operations.ListOperations(operation_pb2.ListOperationsRequest())
    assert said.exists()
    assert "no" in powerful.log()
    assert len([o for o in listed.operations if o.verb == "HostPowerAction"]) == 5


def test_changes_of_the_host_exclude_each_other(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon("--allow-host-power", "--fake-faults=host_power_action.reboot=delay:30")
    with daemon.start().connect() as connection, ThreadPoolExecutor(1) as pool:
        cursor = cursor_now(connection)
        slow = pool.submit(power, connection, REBOOT)
        begun = events_after(connection, cursor, until=lambda event: event.HasField("operation"))
        operation_id = begun[-1].operation.operation_id
        with refused(grpc.StatusCode.ABORTED, "HOST_BUSY") as refusal:
            connection.hosts.SetHostEnabled(pb.SetHostEnabledRequest(enabled=True))
        assert refusal.metadata["operation_id"] == operation_id
        assert connection.hosts.GetHost(pb.GetHostRequest()).host.operation_id == operation_id
        cancel = operation_pb2.CancelOperationRequest(operation_id=operation_id)
        connection.operations.CancelOperation(cancel)
        with refused(grpc.StatusCode.CANCELLED):
            slow.result(TIMEOUT_S)
        assert connection.hosts.GetHost(pb.GetHostRequest()).host.operation_id == ""
