"""Rescue: another disk boots, with the instance's own beside it, and the way back."""

import stat
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from virtrpc.v1 import instance_pb2 as pb
from virtrpc.v1 import operation_pb2, types_pb2
from virtrpc.v1.event_pb2 import Event
from virtrpc.v1.instance_pb2 import Instance

from tests.conformance.conftest import state_of
from tests.conformance.test_config_drive import Drive
from tests.conftest import MakeDaemon
from tests.daemon import Connection, DaemonProcess
from tests.events_seen import cursor_now, events_after, wait_for_step
from tests.instances import TIMEOUT_S, small_spec, spawned, succeeded
from tests.refusals import refused

UNKNOWN = "00000000-0000-4000-8000-00000000dead"
PASSWORD = "canary-rescue-password-4b1d"  # noqa: S105 - that is what is looked for
RUNNING, SHUTDOWN = types_pb2.POWER_STATE_RUNNING, types_pb2.POWER_STATE_SHUTDOWN
AT_ONCE = Duration(seconds=0)
# What a real machine would show no other way is not worth its time.
ON_THE_FAKE = pytest.mark.parametrize("backend", ["fake"], indirect=True)


@pytest.fixture(scope="module")
def instance_id(daemon: DaemonProcess, backend: str) -> Iterator[str]:
    """An instance with a root disk, an ephemeral one and a config drive."""
    spec = small_spec(backend=backend, boot="disk")
    spec.block_devices.add(ephemeral={"size_mib": 1})
    spec.guest.hostname = "told.example"
    with daemon.connect() as connection, spawned(connection, spec) as made:
        yield made


def rescue(connection: Connection, instance_id: str, **fields: object) -> Instance:
    request = pb.RescueInstanceRequest(
        instance_id=instance_id,
        **{"rescue_image_id": "guest", **fields},  # type: ignore[arg-type]
    )
    return connection.instances.RescueInstance(request, timeout=TIMEOUT_S).instance


def unrescue(connection: Connection, instance_id: str, **fields: object) -> Instance:
    request = pb.UnrescueInstanceRequest(instance_id=instance_id, **fields)  # type: ignore[arg-type]
    return connection.instances.UnrescueInstance(request, timeout=TIMEOUT_S).instance


def disks(instance: Instance) -> list[tuple[str, str]]:
    return [(disk.device_name, disk.role) for disk in instance.persistent.disks]


def power_off(connection: Connection, instance_id: str) -> None:
    request = pb.PowerOffInstanceRequest(instance_id=instance_id, timeout=AT_ONCE)
    connection.instances.PowerOffInstance(request, timeout=TIMEOUT_S)


def test_an_instance_is_rescued_and_comes_back(connection: Connection, instance_id: str) -> None:
    before = state_of(connection, instance_id)
    assert disks(before) == [("vda", "root"), ("vdb", "ephemeral"), ("vdz", "config")]
    for _ in range(2):
        rescued = rescue(connection, instance_id)
        assert (rescued.rescued, rescued.rescue_image_id) == (True, "guest")
        assert rescued.HasField("rescued_at")
        assert rescued.power_state == RUNNING
    assert disks(rescued) == [
        ("vda", "rescue"),
        ("vdb", "ephemeral"),
        ("vdc", "root"),
        ("vdz", "config"),
    ]
    boots = {d.role: d.boot_index for d in rescued.effective.disks if d.HasField("boot_index")}
    assert boots == {"rescue": 0, "root": 1}
    for _ in range(2):
        back = unrescue(connection, instance_id)
        assert back.power_state == RUNNING
        assert not back.HasField("rescued_at")
        assert (back.rescued, back.rescue_image_id) == (False, "")
        assert back.persistent == before.persistent
        assert disks(state_of(connection, instance_id)) == disks(before)


@ON_THE_FAKE
def test_another_image_is_refused_in_rescue(
    connection: Connection, daemon: DaemonProcess, instance_id: str
) -> None:
    other = daemon.image_dir / "other.raw"
    other.write_bytes(bytes(1 << 20))
    rescue(connection, instance_id)
    with refused(grpc.StatusCode.FAILED_PRECONDITION, "WRONG_STATE"):
        rescue(connection, instance_id, rescue_image_id="other")
    with refused(grpc.StatusCode.FAILED_PRECONDITION, "BLOCKED") as refusal:
        rescue(connection, instance_id, rescue_image_id="none", validate_only=True)
    assert refusal.preconditions == ["IMAGE_NOT_FOUND", "WRONG_STATE"]
    unrescue(connection, instance_id)
    other.unlink()


def test_a_rescue_outlives_power_cycles(connection: Connection, instance_id: str) -> None:
    rescue(connection, instance_id)
    power_off(connection, instance_id)
    assert rescue(connection, instance_id).power_state == SHUTDOWN, "a repeat changes nothing"
    on = pb.PowerOnInstanceRequest(instance_id=instance_id)
    started = connection.instances.PowerOnInstance(on, timeout=TIMEOUT_S).instance
    assert started.rescued
    assert disks(started)[0] == ("vda", "rescue")
    assert unrescue(connection, instance_id).power_state == RUNNING


@ON_THE_FAKE
def test_an_instance_that_was_off_runs_in_rescue_and_after(
    connection: Connection, instance_id: str
) -> None:
    power_off(connection, instance_id)
    assert rescue(connection, instance_id).power_state == RUNNING
    assert unrescue(connection, instance_id).power_state == RUNNING


@ON_THE_FAKE
def test_an_instance_that_may_not_run_is_left_off(connection: Connection, instance_id: str) -> None:
    rescue(connection, instance_id)
    bootable = pb.SetInstanceBootableRequest(instance_id=instance_id, bootable=False)
    connection.instances.SetInstanceBootable(bootable)
    assert unrescue(connection, instance_id).power_state == SHUTDOWN
    with refused(grpc.StatusCode.FAILED_PRECONDITION, "NOT_BOOTABLE"):
        rescue(connection, instance_id)
    bootable.bootable = True
    connection.instances.SetInstanceBootable(bootable)
    on = pb.PowerOnInstanceRequest(instance_id=instance_id)
    connection.instances.PowerOnInstance(on, timeout=TIMEOUT_S)


@ON_THE_FAKE
def test_a_suspended_instance_is_refused(connection: Connection, instance_id: str) -> None:
    suspend = pb.SuspendInstanceRequest(instance_id=instance_id)
    succeeded(connection, connection.instances.SuspendInstance(suspend))
    with refused(grpc.StatusCode.FAILED_PRECONDITION, "WRONG_STATE"):
        rescue(connection, instance_id)
    resume = pb.ResumeInstanceRequest(instance_id=instance_id)
    succeeded(connection, connection.instances.ResumeInstance(resume))


def test_unknown_instances_and_images_are_not_found(
    connection: Connection, instance_id: str
) -> None:
    with refused(grpc.StatusCode.NOT_FOUND, "INSTANCE_NOT_FOUND"):
        rescue(connection, UNKNOWN)
    with refused(grpc.StatusCode.NOT_FOUND, "INSTANCE_NOT_FOUND"):
        unrescue(connection, UNKNOWN)
    with refused(grpc.StatusCode.NOT_FOUND, "IMAGE_NOT_FOUND") as refusal:
        rescue(connection, instance_id, rescue_image_id="none")
    assert refusal.fields == ["rescue_image_id"]
    with refused(grpc.StatusCode.INVALID_ARGUMENT, "IMAGE_NOT_A_DISK") as refusal:
        rescue(connection, instance_id, rescue_image_id="kernel")
    assert refusal.fields == ["rescue_image_id"]


@ON_THE_FAKE
def test_a_check_changes_nothing(connection: Connection, instance_id: str) -> None:
    cursor = cursor_now(connection)
    assert not rescue(connection, instance_id, validate_only=True).instance_id
    assert not unrescue(connection, instance_id, validate_only=True).instance_id
    poll = pb.PollRescuedInstancesRequest(timeout=AT_ONCE, validate_only=True)
    assert not connection.instances.PollRescuedInstances(poll).instance_ids
    assert cursor_now(connection) == cursor


def test_the_rescue_system_is_told_its_password_alone(
    connection: Connection, daemon: DaemonProcess, instance_id: str
) -> None:
    rescued = rescue(connection, instance_id, admin_password=PASSWORD)
    (config,) = [disk for disk in rescued.effective.disks if disk.role == "config"]
    path = Path(config.source)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    told = Drive(path).json("openstack/latest/meta_data.json")
    assert (told["uuid"], told["hostname"]) == (instance_id, "told.example")
    assert told["admin_pass"] == PASSWORD
    assert _files_with(daemon, PASSWORD) == [path]
    unrescue(connection, instance_id)
    assert _files_with(daemon, PASSWORD) == []


def test_an_instance_without_root_disk_and_config_drive(
    connection: Connection, backend: str
) -> None:
    with spawned(connection, small_spec(backend=backend)) as instance_id:
        before = state_of(connection, instance_id)
        assert disks(before) == []
        rescued = rescue(connection, instance_id, admin_password=PASSWORD)
        assert disks(rescued) == [("vda", "rescue"), ("vdz", "config")]
        back = unrescue(connection, instance_id)
        assert back.persistent == before.persistent
        assert back.power_state == RUNNING


def test_poll_ends_rescues_that_are_too_long(connection: Connection, instance_id: str) -> None:
    rescue(connection, instance_id)
    poll = connection.instances.PollRescuedInstances
    assert not poll(pb.PollRescuedInstancesRequest(), timeout=TIMEOUT_S).instance_ids
    now = pb.PollRescuedInstancesRequest(timeout=AT_ONCE)
    assert list(poll(now, timeout=TIMEOUT_S).instance_ids) == [instance_id]
    assert not state_of(connection, instance_id).rescued
    assert not poll(now, timeout=TIMEOUT_S).instance_ids


def test_the_daemon_ends_rescues_by_itself(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon("--rescue-timeout=0.1")
    spec = small_spec(backend="fake", boot="disk")
    with daemon.start(), daemon.connect() as connection, spawned(connection, spec) as instance_id:
        cursor = cursor_now(connection)
        rescue(connection, instance_id)
        *_, ended = events_after(connection, cursor, until=_unrescued)
        assert ended.operation.caller == "daemon:rescues"
        assert not state_of(connection, instance_id).rescued


def test_a_rescue_that_fails_leaves_the_instance_as_it_was(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon("--fake-faults=rescue_instance.start=fail")
    spec = small_spec(backend="fake", boot="disk")
    with daemon.start(), daemon.connect() as connection, spawned(connection, spec) as instance_id:
        before = state_of(connection, instance_id)
        with refused(grpc.StatusCode.INTERNAL, "HYPERVISOR_ERROR"):
            rescue(connection, instance_id, admin_password=PASSWORD)
        after = state_of(connection, instance_id)
        assert after.persistent == before.persistent
        assert (after.power_state, after.rescued) == (RUNNING, False)
        assert _files_with(daemon, PASSWORD) == []


def test_a_return_that_has_begun_is_gone_through_with(make_daemon: MakeDaemon) -> None:
    """A cancel in its midst would leave an instance that is off."""
    daemon = make_daemon("--fake-faults=unrescue_instance.define=delay:1")
    spec = small_spec(backend="fake", boot="disk")
    with daemon.start(), daemon.connect() as connection, spawned(connection, spec) as instance_id:
        rescue(connection, instance_id)
        request, cursor = (
            pb.UnrescueInstanceRequest(instance_id=instance_id),
            cursor_now(connection),
        )
        returning = connection.instances.UnrescueInstance.future(request, timeout=TIMEOUT_S)
        begun = wait_for_step(connection, cursor, "UnrescueInstance")
        cancel = operation_pb2.CancelOperationRequest(operation_id=begun.operation_id)
        connection.operations.CancelOperation(cancel, timeout=TIMEOUT_S)
        returned = returning.result().instance
        assert (returned.power_state, returned.rescued) == (RUNNING, False)


def _unrescued(event: Event) -> bool:
    return event.operation.done and event.operation.verb == "UnrescueInstance"


def _files_with(daemon: DaemonProcess, secret: str) -> list[Path]:
    """Files of the daemon, its log and journal among them, that hold a secret."""
    return [
        path
        for path in sorted(daemon.folder.rglob("*"))
        if path.is_file()
        and path.parent != daemon.image_dir
        and secret.encode() in path.read_bytes()
    ]
