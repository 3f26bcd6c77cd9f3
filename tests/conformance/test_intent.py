"""What is wanted of an instance: bootable, metadata, soft-deleted, its state after a boot."""

from collections.abc import Iterator

import grpc
import pytest
from virtrpc.v1 import instance_pb2 as pb
from virtrpc.v1 import types_pb2

from tests.conftest import MakeDaemon
from tests.daemon import Connection, DaemonProcess
from tests.events_seen import cursor_now, events_after
from tests.instances import small_spec, spawned
from tests.refusals import refused

HOSTILE = "<b>\"&'é\U0001f600]]>"


@pytest.fixture(scope="module")
def shared(daemon: DaemonProcess, backend: str) -> Iterator[tuple[Connection, str]]:
    """A connection, and an instance for the tests of this module."""
    with daemon.connect() as connection, spawned(connection, small_spec(backend=backend)) as made:
        yield connection, made


def test_an_instance_that_may_not_boot_is_not_started(shared: tuple[Connection, str]) -> None:
    connection, instance_id = shared
    forbid = pb.SetInstanceBootableRequest(instance_id=instance_id, bootable=False)
    assert not connection.instances.SetInstanceBootable(forbid).instance.bootable
    assert not connection.instances.SetInstanceBootable(forbid).instance.bootable
    with refused(grpc.StatusCode.FAILED_PRECONDITION, "NOT_BOOTABLE"):
        connection.instances.RebootInstance(pb.RebootInstanceRequest(instance_id=instance_id))
    allow = pb.SetInstanceBootableRequest(instance_id=instance_id, bootable=True)
    assert connection.instances.SetInstanceBootable(allow).instance.bootable


def test_metadata_change_by_a_difference(shared: tuple[Connection, str]) -> None:
    connection, instance_id = shared
    change = pb.UpdateInstanceMetadataRequest(
        instance_id=instance_id, set={"a": HOSTILE, "b": "2", "gone": "x"}
    )
    connection.instances.UpdateInstanceMetadata(change)
    change = pb.UpdateInstanceMetadataRequest(
        instance_id=instance_id, set={"b": "3"}, remove=["gone", "never"]
    )
    for _ in range(2):
        metadata = connection.instances.UpdateInstanceMetadata(change).metadata
        assert dict(metadata) == {"a": HOSTILE, "b": "3"}
    read = connection.instances.GetInstance(pb.GetInstanceRequest(instance_id=instance_id))
    assert dict(read.instance.metadata) == {"a": HOSTILE, "b": "3"}


def test_a_soft_deleted_instance_is_hidden_and_comes_back(
    connection: Connection, backend: str
) -> None:
    with spawned(connection, small_spec(backend=backend)) as instance_id:
        soft_delete = pb.SoftDeleteInstanceRequest(instance_id=instance_id)
        for _ in range(2):
            deleted = connection.instances.SoftDeleteInstance(soft_delete).instance
            assert deleted.HasField("reclaim_at")
            assert deleted.power_state == types_pb2.POWER_STATE_SHUTDOWN
        listed = connection.instances.ListInstances(pb.ListInstancesRequest())
        assert instance_id not in {instance.instance_id for instance in listed.instances}
        everything = pb.ListInstancesRequest(include_soft_deleted=True)
        listed = connection.instances.ListInstances(everything)
        assert instance_id in {instance.instance_id for instance in listed.instances}
        for verb in ("PowerOn", "Reboot"):
            request = getattr(pb, f"{verb}InstanceRequest")(instance_id=instance_id)
            with refused(grpc.StatusCode.FAILED_PRECONDITION, "SOFT_DELETED"):
                getattr(connection.instances, f"{verb}Instance")(request)
        restore = pb.RestoreInstanceRequest(instance_id=instance_id)
        for _ in range(2):
            restored = connection.instances.RestoreInstance(restore).instance
            assert not restored.HasField("reclaim_at")
            assert restored.power_state == types_pb2.POWER_STATE_RUNNING


def test_a_soft_deleted_instance_is_destroyed_after_its_retention(
    connection: Connection, backend: str
) -> None:
    with spawned(connection, small_spec(backend=backend)) as instance_id:
        cursor = cursor_now(connection)
        request = pb.SoftDeleteInstanceRequest(instance_id=instance_id)
        request.retention.FromMilliseconds(1)
        connection.instances.SoftDeleteInstance(request)
        events_after(
            connection,
            cursor,
            until=lambda event: event.operation.verb == "DestroyInstance" and event.operation.done,
        )
        with refused(grpc.StatusCode.NOT_FOUND, "INSTANCE_NOT_FOUND"):
            connection.instances.GetInstance(pb.GetInstanceRequest(instance_id=instance_id))


def test_after_a_host_boot_an_instance_is_as_it_was_meant_to_be(
    connection: Connection, backend: str
) -> None:
    with spawned(connection, small_spec(backend=backend)) as instance_id:
        off = pb.PowerOffInstanceRequest(instance_id=instance_id)
        off.timeout.FromSeconds(0)
        connection.instances.PowerOffInstance(off)
        resume = pb.ResumeInstanceOnHostBootRequest(instance_id=instance_id)
        as_meant = connection.instances.ResumeInstanceOnHostBoot(resume).instance
        assert as_meant.power_state == types_pb2.POWER_STATE_SHUTDOWN
        resume.power_state = types_pb2.POWER_STATE_PAUSED
        as_asked = connection.instances.ResumeInstanceOnHostBoot(resume).instance
        assert as_asked.power_state == types_pb2.POWER_STATE_PAUSED
        resume.power_state = types_pb2.POWER_STATE_RUNNING
        for _ in range(2):
            running = connection.instances.ResumeInstanceOnHostBoot(resume).instance
            assert running.power_state == types_pb2.POWER_STATE_RUNNING


def test_bootable_and_metadata_outlive_the_daemon(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(backend="libvirt").start()
    spec = small_spec(backend="libvirt")
    with daemon.connect() as connection, spawned(connection, spec) as instance_id:
        connection.instances.SetInstanceBootable(
            pb.SetInstanceBootableRequest(instance_id=instance_id, bootable=False)
        )
        connection.instances.UpdateInstanceMetadata(
            pb.UpdateInstanceMetadataRequest(instance_id=instance_id, set={"k": "v"})
        )
        daemon.kill()
        daemon.start()
        with daemon.connect() as again:
            read = again.instances.GetInstance(pb.GetInstanceRequest(instance_id=instance_id))
            assert not read.instance.bootable
            assert dict(read.instance.metadata) == {"k": "v"}
            destroy = pb.DestroyInstanceRequest(instance_id=instance_id, destroy_disks=True)
            again.instances.DestroyInstance(destroy)
