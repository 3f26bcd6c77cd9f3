"""Images made from instances: running or off, whole or not at all."""

import hashlib
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from virtrpc.v1 import image_pb2, image_pb2_grpc, operation_pb2, spec_pb2, types_pb2
from virtrpc.v1 import instance_pb2 as pb
from virtrpc.v1.image_pb2 import Image
from virtrpc.v1.operation_pb2 import Operation
from virtrpc.v1.spec_pb2 import DiskFormat

from tests.conformance.conftest import state_of
from tests.conftest import MakeDaemon
from tests.daemon import Connection, DaemonProcess
from tests.events_seen import cursor_now
from tests.instances import TIMEOUT_S, destroyed, finished, small_spec, spawned
from tests.refusals import refused

UNKNOWN = "00000000-0000-4000-8000-00000000dead"
RUNNING, PAUSED = types_pb2.POWER_STATE_RUNNING, types_pb2.POWER_STATE_PAUSED
SUCCEEDED = operation_pb2.OPERATION_STATE_SUCCEEDED
CANCELLED = operation_pb2.OPERATION_STATE_CANCELLED
RAW, QCOW2 = spec_pb2.DISK_FORMAT_RAW, spec_pb2.DISK_FORMAT_QCOW2


@pytest.fixture(scope="module")
def instance_id(daemon: DaemonProcess, backend: str) -> Iterator[str]:
    """An instance with a root disk."""
    spec = small_spec(backend=backend, boot="disk")
    with daemon.connect() as connection, spawned(connection, spec) as spawned_id:
        yield spawned_id


def begin(connection: Connection, instance_id: str, image_id: str, **fields: object) -> Operation:
    request = pb.SnapshotInstanceRequest(instance_id=instance_id, image_id=image_id, **fields)  # type: ignore[arg-type]
    return connection.instances.SnapshotInstance(request, timeout=TIMEOUT_S)


def made(connection: Connection, operation: Operation) -> pb.SnapshotInstanceResponse:
    ended = finished(connection, operation)
    assert ended.state == SUCCEEDED, ended.error
    response = pb.SnapshotInstanceResponse()
    ended.result.Unpack(response)
    return response


@contextmanager
def snapshot(
    connection: Connection, instance_id: str, **fields: object
) -> Iterator[pb.SnapshotInstanceResponse]:
    """A snapshot that is there inside."""
    image_id = f"snapshot-{uuid.uuid4().hex[:8]}"
    try:
        yield made(connection, begin(connection, instance_id, image_id, **fields))
    finally:
        request = image_pb2.DeleteImageRequest(image_id=image_id)
        image_pb2_grpc.ImageServiceStub(connection.channel).DeleteImage(request)


def images(connection: Connection) -> dict[str, Image]:
    reply = image_pb2_grpc.ImageServiceStub(connection.channel).ListImages(
        image_pb2.ListImagesRequest()
    )
    return {image.image_id: image for image in reply.images}


def power(connection: Connection, instance_id: str, *, on: bool) -> None:
    if on:
        start = pb.PowerOnInstanceRequest(instance_id=instance_id)
        connection.instances.PowerOnInstance(start, timeout=TIMEOUT_S)
    else:
        off = pb.PowerOffInstanceRequest(instance_id=instance_id, timeout=Duration(seconds=0))
        connection.instances.PowerOffInstance(off, timeout=TIMEOUT_S)


def holds(daemon: DaemonProcess, image: Image, response: pb.SnapshotInstanceResponse) -> None:
    """The image's file is whole, stands for itself, and is what the response says."""
    path = daemon.image_dir / f"{image.image_id}.{'raw' if image.format == RAW else 'qcow2'}"
    assert (path.stat().st_uid, path.stat().st_mode & 0o777) == (0, 0o644)
    digest = f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
    assert response.checksum == image.checksum == digest
    assert response.size_bytes == image.size_bytes == path.stat().st_size
    if image.format == QCOW2:
        subprocess.run(["qemu-img", "check", "-q", "-f", "qcow2", path], check=True)


@pytest.mark.parametrize("live", [True, False], ids=["live", "off"])
def test_a_snapshot_becomes_an_image(
    connection: Connection, daemon: DaemonProcess, instance_id: str, live: bool
) -> None:
    becomes_an_image(daemon, connection, instance_id, live=live, disk_format=QCOW2)


# Those of the fake are as large as its disks.
@pytest.mark.parametrize("backend", ["libvirt"], indirect=True)
@pytest.mark.parametrize("live", [True, False], ids=["live", "off"])
def test_a_snapshot_may_be_raw(
    connection: Connection, daemon: DaemonProcess, instance_id: str, live: bool
) -> None:
    becomes_an_image(daemon, connection, instance_id, live=live, disk_format=RAW)


def becomes_an_image(
    daemon: DaemonProcess,
    connection: Connection,
    instance_id: str,
    *,
    live: bool,
    disk_format: "DiskFormat.ValueType",
) -> None:
    power(connection, instance_id, on=live)
    before = state_of(connection, instance_id)
    with snapshot(connection, instance_id, format=disk_format) as response:
        assert response.live is live
        image = images(connection)[response.image_id]
        assert (image.format, image.source) == (disk_format, instance_id)
        assert image.origin == image_pb2.IMAGE_ORIGIN_SNAPSHOT
        assert image.properties["instance_uuid"] == instance_id
        assert image.properties["base_image_ref"] == "guest"
        assert image.virtual_size_bytes == images(connection)["guest"].virtual_size_bytes
        assert list(image.used_by_instance_ids) == []
        holds(daemon, image, response)
    after = state_of(connection, instance_id)
    assert (after.power_state, after.persistent) == (before.power_state, before.persistent)
    power(connection, instance_id, on=True)


def test_a_paused_guest_stays_paused(connection: Connection, instance_id: str) -> None:
    connection.instances.PauseInstance(pb.PauseInstanceRequest(instance_id=instance_id))
    with refused(grpc.StatusCode.FAILED_PRECONDITION, "WRONG_STATE"):
        begin(connection, instance_id, "frozen", quiesce=True, validate_only=True)
    with snapshot(connection, instance_id) as response:
        assert response.live
    assert state_of(connection, instance_id).power_state == PAUSED
    connection.instances.UnpauseInstance(pb.UnpauseInstanceRequest(instance_id=instance_id))


def test_the_same_request_gives_the_first_outcome(connection: Connection, instance_id: str) -> None:
    request_id = str(uuid.uuid4())
    with snapshot(connection, instance_id, request_id=request_id) as response:
        again = begin(connection, instance_id, response.image_id, request_id=request_id)
        assert made(connection, again) == response
        with refused(grpc.StatusCode.ALREADY_EXISTS, "IMAGE_EXISTS") as refusal:
            begin(connection, instance_id, response.image_id, validate_only=True)
        assert refusal.fields == ["image_id"]
        operation = finished(connection, begin(connection, instance_id, response.image_id))
        assert operation.error.reason == "IMAGE_EXISTS"
        assert response.image_id in images(connection)


def test_a_check_changes_nothing(connection: Connection, instance_id: str) -> None:
    cursor = cursor_now(connection)
    assert begin(connection, instance_id, "checked", validate_only=True).done
    assert cursor_now(connection) == cursor
    assert "checked" not in images(connection)


def test_what_cannot_be_is_refused(connection: Connection, backend: str, instance_id: str) -> None:
    operation = finished(connection, begin(connection, UNKNOWN, "x"))
    assert operation.error.reason == "INSTANCE_NOT_FOUND"
    for image_id in ("", "../x", ".x", "a/b"):
        with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST") as refusal:
            begin(connection, instance_id, image_id)
        assert refusal.fields == ["image_id"]
    with spawned(connection, small_spec(backend=backend)) as diskless:
        operation = finished(connection, begin(connection, diskless, "x"))
        assert operation.error.reason == "NO_ROOT_DISK"


def test_an_image_of_a_destroyed_instance_stays(connection: Connection, backend: str) -> None:
    spec = small_spec(backend=backend, boot="disk")
    with (
        spawned(connection, spec) as instance_id,
        snapshot(connection, instance_id) as response,
    ):
        destroyed(connection, instance_id)
        assert response.image_id in images(connection)


@contextmanager
def slow_copies(
    make_daemon: MakeDaemon, *, fault: str = "snapshot_instance.copy=delay:60"
) -> Iterator[tuple[DaemonProcess, Connection, str]]:
    """A fake with an instance whose snapshots take their time."""
    daemon = make_daemon(f"--fake-faults={fault}")
    spec = small_spec(backend="fake", boot="disk")
    with daemon.start(), daemon.connect() as connection, spawned(connection, spec) as instance_id:
        yield daemon, connection, instance_id


def in_step(connection: Connection, operation: Operation, step: str) -> None:
    """Waits until an operation is in a step."""
    request = operation_pb2.WatchOperationRequest(operation_id=operation.operation_id)
    for response in connection.operations.WatchOperation(request, timeout=TIMEOUT_S):
        if any(each.name == step for each in response.operation.steps):
            return
    raise AssertionError(f"it ended without {step}")


def incoming(daemon: DaemonProcess) -> list[Path]:
    return list((daemon.image_dir / ".incoming").glob("*"))


def test_a_cancelled_snapshot_leaves_nothing(make_daemon: MakeDaemon) -> None:
    with slow_copies(make_daemon) as (daemon, connection, instance_id):
        operation = begin(connection, instance_id, "cancelled")
        in_step(connection, operation, "copy")
        connection.operations.CancelOperation(
            operation_pb2.CancelOperationRequest(operation_id=operation.operation_id)
        )
        assert finished(connection, operation).state == CANCELLED
        assert "cancelled" not in images(connection)
        assert incoming(daemon) == []
        assert state_of(connection, instance_id).power_state == RUNNING


def test_a_destroy_pre_empts_a_snapshot(make_daemon: MakeDaemon) -> None:
    with slow_copies(make_daemon) as (daemon, connection, instance_id):
        operation = begin(connection, instance_id, "pre-empted")
        in_step(connection, operation, "copy")
        destroyed(connection, instance_id)
        assert finished(connection, operation).state == CANCELLED
        assert "pre-empted" not in images(connection)
        assert incoming(daemon) == []


def test_a_snapshot_that_fails_leaves_nothing(make_daemon: MakeDaemon) -> None:
    fault = "snapshot_instance.store=fail"
    with slow_copies(make_daemon, fault=fault) as (daemon, connection, instance_id):
        operation = finished(connection, begin(connection, instance_id, "failed"))
        assert operation.error.reason == "HYPERVISOR_ERROR"
        assert "failed" not in images(connection)
        assert incoming(daemon) == []


def test_an_interrupted_snapshot_is_cleaned_up_at_the_next_start(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon("--fake-faults=snapshot_instance.store=delay:60")
    spec = small_spec(backend="fake", boot="disk")
    with daemon.start(), daemon.connect() as connection:
        instance_id = str(uuid.uuid4())
        spawn = pb.SpawnInstanceRequest(instance_id=instance_id, spec=spec)
        finished(connection, connection.instances.SpawnInstance(spawn))
        operation = begin(connection, instance_id, "interrupted")
        in_step(connection, operation, "store")
        assert incoming(daemon) != []
        daemon.kill()
    with daemon.start(), daemon.connect() as connection:
        assert finished(connection, operation).error.reason == "DAEMON_RESTARTED"
        assert "interrupted" not in images(connection)
        assert incoming(daemon) == []
