"""Another flavor on the same host: kept until it is confirmed or reverted."""

import uuid
from collections.abc import Iterator

import grpc
import pytest
from virtrpc.v1 import (
    console_pb2,
    instance_pb2,
    interface_pb2,
    migration_pb2,
    spec_pb2,
    types_pb2,
    volume_pb2,
)
from virtrpc.v1.instance_pb2 import Instance
from virtrpc.v1.spec_pb2 import (
    BlockDevice,
    Flavor,
    InstanceSpec,
    InterfaceSpec,
    UserModeNetwork,
)

from tests.attached import Tunnelled
from tests.cold import (
    cold_ended,
    cold_request,
    confirm,
    finish_request,
    finished_at,
    released,
    revert,
)
from tests.console_tokens import VNC, is_void, screen_token
from tests.daemon import Connection, DaemonProcess
from tests.instances import TIMEOUT_S, small_spec, spawned
from tests.refusals import refused


@pytest.fixture
def spec(backend: str) -> InstanceSpec:
    made = small_spec(backend=backend)
    made.flavor.swap_mib = 1
    made.machine.graphics = spec_pb2.GRAPHICS_TYPE_VNC
    return made


@pytest.fixture
def subject(connection: Connection, spec: InstanceSpec) -> Iterator[str]:
    with spawned(connection, spec) as instance_id:
        yield instance_id


def larger(spec: InstanceSpec, **other: int) -> Flavor:
    """A flavor with everything a little more."""
    more = {"vcpus": 2, "memory_mib": 112, "swap_mib": 2, "ephemeral_disk_gib": 0, **other}
    flavor = Flavor()
    flavor.CopyFrom(spec.flavor)
    for name, value in more.items():
        setattr(flavor, name, value)
    return flavor


def instance(connection: Connection, instance_id: str) -> Instance:
    request = instance_pb2.GetInstanceRequest(instance_id=instance_id, fresh=True)
    return connection.instances.GetInstance(request, timeout=TIMEOUT_S).instance


def sizes(found: Instance) -> tuple[int, int, int]:
    return found.persistent.vcpus, found.persistent.memory_kib, found.spec.flavor.swap_mib


def power_on(connection: Connection, instance_id: str) -> None:
    request = instance_pb2.PowerOnInstanceRequest(instance_id=instance_id)
    connection.instances.PowerOnInstance(request, timeout=TIMEOUT_S)


def test_resize_is_confirmed_and_cannot_be_reverted(
    connection: Connection, subject: str, spec: InstanceSpec
) -> None:
    request = cold_request(subject, flavor=larger(spec))
    token = screen_token(connection, subject)
    with Tunnelled(connection, subject, type=VNC) as screen:
        screen.opened()
        first = released(connection, request)
        assert screen.closed() == console_pb2.CONSOLE_CLOSE_REASON_INSTANCE_STOPPED
    assert first.data.released and first.data.resize
    assert first.old_power_state == types_pb2.POWER_STATE_RUNNING
    kept = instance(connection, subject)
    assert kept.pending_migration_id == request.migration_id
    assert kept.power_state == types_pb2.POWER_STATE_SHUTDOWN
    with refused(grpc.StatusCode.FAILED_PRECONDITION, "MIGRATION_PENDING"):
        power_on(connection, subject)
    with refused(grpc.StatusCode.FAILED_PRECONDITION, "NOT_FINISHED"):
        confirm(connection, first.data)
    finish = finish_request(first.data)
    made = finished_at(connection, finish)
    assert made.power_state == types_pb2.POWER_STATE_RUNNING
    assert sizes(made) == (2, 112 * 1024, 2)
    is_void(connection, subject, token)
    assert not made.pending_migration_id
    assert finished_at(connection, finish).started_at == made.started_at
    assert released(connection, request).total_time == first.total_time
    other = cold_request(subject, flavor=larger(spec))
    assert cold_ended(connection, other).error.reason == "MIGRATION_PENDING"
    assert not confirm(connection, first.data).already_confirmed
    assert confirm(connection, first.data).already_confirmed
    with refused(grpc.StatusCode.FAILED_PRECONDITION, "CONFIRMED"):
        revert(connection, first.data)
    assert instance(connection, subject).power_state == types_pb2.POWER_STATE_RUNNING


def test_resize_is_reverted_and_cannot_be_confirmed(
    connection: Connection, subject: str, spec: InstanceSpec
) -> None:
    before = sizes(instance(connection, subject))
    data = released(connection, cold_request(subject, flavor=larger(spec))).data
    finished_at(connection, finish_request(data))
    token = screen_token(connection, subject)
    back = revert(connection, data, power_on=True).instance
    is_void(connection, subject, token)
    assert back.power_state == types_pb2.POWER_STATE_RUNNING
    assert sizes(back) == before
    assert not back.pending_migration_id
    assert revert(connection, data).instance.started_at == back.started_at
    with refused(grpc.StatusCode.FAILED_PRECONDITION, "REVERTED"):
        confirm(connection, data)
    with refused(grpc.StatusCode.FAILED_PRECONDITION, "NOT_PREPARED"):
        raise_ended(connection, finish_request(data))


def test_revert_keeps_devices_and_metadata_as_they_are_by_then(
    daemon: DaemonProcess, connection: Connection, subject: str, spec: InstanceSpec
) -> None:
    former, later = volume(daemon), volume(daemon)
    attach(connection, subject, former)
    data = released(connection, cold_request(subject, flavor=larger(spec))).data
    detach = volume_pb2.DetachVolumeRequest(instance_id=subject, volume_id=former.volume.volume_id)
    connection.volumes.DetachVolume(detach, timeout=TIMEOUT_S)
    finished_at(connection, finish_request(data, power_on=False))
    attach(connection, subject, later)
    nic = InterfaceSpec(port_id=str(uuid.uuid4()), user=UserModeNetwork())
    plug = interface_pb2.AttachInterfaceRequest(instance_id=subject, interface=nic)
    connection.interfaces.AttachInterface(plug, timeout=TIMEOUT_S)
    said = instance_pb2.UpdateInstanceMetadataRequest(instance_id=subject, set={"said": "since"})
    connection.instances.UpdateInstanceMetadata(said, timeout=TIMEOUT_S)
    revert(connection, data, power_on=True)
    back = instance(connection, subject)
    assert back.power_state == types_pb2.POWER_STATE_RUNNING
    assert sizes(back) == (1, 96 * 1024, 1)
    for machine in (back.persistent, back.effective):
        volumes = [disk.volume_id for disk in machine.disks if disk.volume_id]
        assert volumes == [later.volume.volume_id]
        assert [port.port_id for port in machine.interfaces] == [nic.port_id]
    assert [port.port_id for port in back.spec.interfaces] == [nic.port_id]
    assert dict(back.metadata) == {"said": "since"}


def test_what_may_not_run_is_not_started_by_its_resize(
    connection: Connection, subject: str, spec: InstanceSpec
) -> None:
    data = released(connection, cold_request(subject, flavor=larger(spec))).data
    hide = instance_pb2.SoftDeleteInstanceRequest(instance_id=subject)
    connection.instances.SoftDeleteInstance(hide, timeout=TIMEOUT_S)
    with refused(grpc.StatusCode.FAILED_PRECONDITION, "SOFT_DELETED"):
        raise_ended(connection, finish_request(data))
    back = revert(connection, data, power_on=True).instance
    assert back.power_state == types_pb2.POWER_STATE_SHUTDOWN
    assert back.HasField("reclaim_at")


def test_resize_is_reverted_before_it_was_finished(
    connection: Connection, subject: str, spec: InstanceSpec
) -> None:
    data = released(connection, cold_request(subject, flavor=larger(spec))).data
    back = revert(connection, data).instance
    assert back.power_state == types_pb2.POWER_STATE_SHUTDOWN
    assert sizes(back) == (1, 96 * 1024, 1)
    with refused(grpc.StatusCode.FAILED_PRECONDITION, "NOT_PREPARED"):
        raise_ended(connection, finish_request(data))


@pytest.mark.parametrize("field", ["swap_mib", "ephemeral_disk_gib", "root_disk_gib"])
def test_smaller_disk_is_refused_with_its_field(
    connection: Connection, backend: str, field: str
) -> None:
    spec = small_spec(backend=backend)
    flavor = Flavor()
    flavor.CopyFrom(spec.flavor)
    setattr(spec.flavor, field, 2)
    setattr(flavor, field, 1)
    with spawned(connection, spec) as instance_id:
        error = cold_ended(connection, cold_request(instance_id, flavor=flavor)).error
        assert (error.reason, error.code) == (
            "DISK_SHRINK",
            grpc.StatusCode.INVALID_ARGUMENT.value[0],
        )
        assert [blocker.field for blocker in error.blockers] == [f"flavor.{field}"]
        assert instance(connection, instance_id).power_state == types_pb2.POWER_STATE_RUNNING


def test_check_alone_changes_nothing(
    connection: Connection, subject: str, spec: InstanceSpec
) -> None:
    before = instance(connection, subject)
    request = cold_request(subject, flavor=larger(spec))
    request.validate_only = True
    checked = connection.migrations.MigrateDiskAndPowerOff(request, timeout=TIMEOUT_S)
    assert checked.done
    assert instance(connection, subject).started_at == before.started_at
    data = migration_pb2.MigrationData(instance_id=subject, migration_id=request.migration_id)
    with refused(grpc.StatusCode.NOT_FOUND, "MIGRATION_NOT_FOUND"):
        confirm(connection, data)


def test_too_large_a_flavor_is_refused_before_anything_changes(
    connection: Connection, subject: str, spec: InstanceSpec
) -> None:
    before = instance(connection, subject)
    flavor = larger(spec, memory_mib=1 << 24)
    error = cold_ended(connection, cold_request(subject, flavor=flavor)).error
    assert error.reason == "NO_ROOM"
    assert instance(connection, subject).started_at == before.started_at


def test_other_machine_is_refused(connection: Connection, subject: str, spec: InstanceSpec) -> None:
    flavor = larger(spec)
    flavor.extra_specs["hw:tpm_version"] = "2.0"
    error = cold_ended(connection, cold_request(subject, flavor=flavor)).error
    assert "CAPABILITY_MISSING" in {error.reason, *(b.reason for b in error.blockers)}


def test_request_without_purpose_is_invalid(connection: Connection) -> None:
    request = migration_pb2.MigrateDiskAndPowerOffRequest(instance_id=str(uuid.uuid4()))
    with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST"):
        connection.migrations.MigrateDiskAndPowerOff(request, timeout=TIMEOUT_S)


def test_destroy_of_a_pending_instance_leaves_nothing(
    connection: Connection, backend: str, spec: InstanceSpec
) -> None:
    with spawned(connection, spec) as instance_id:
        data = released(connection, cold_request(instance_id, flavor=larger(spec))).data
    with refused(grpc.StatusCode.NOT_FOUND, "INSTANCE_NOT_FOUND"):
        instance(connection, instance_id)
    assert confirm(connection, data).already_confirmed


def volume(daemon: DaemonProcess) -> BlockDevice:
    """A file."""
    volume_id = str(uuid.uuid4())
    path = daemon.volume_dir / volume_id
    path.write_bytes(bytes(1 << 20))
    made = BlockDevice()
    made.volume.volume_id, made.volume.local_file.path = volume_id, str(path)
    return made


def attach(connection: Connection, instance_id: str, device: BlockDevice) -> None:
    request = volume_pb2.AttachVolumeRequest(instance_id=instance_id, device=device)
    connection.volumes.AttachVolume(request, timeout=TIMEOUT_S)


def raise_ended(connection: Connection, request: migration_pb2.FinishMigrationRequest) -> None:
    """Raises what an operation ended with, as a status."""
    request.validate_only = True
    connection.migrations.FinishMigration(request, timeout=TIMEOUT_S)
