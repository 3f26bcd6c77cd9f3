"""Which images are in use, and what ageing deletes: on every backend."""

import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from virtrpc.v1 import image_pb2 as pb
from virtrpc.v1 import image_pb2_grpc, instance_pb2, operation_pb2
from virtrpc.v1.spec_pb2 import DISK_FORMAT_QCOW2

from tests.conformance.image import hostile
from tests.conformance.image.conftest import ImageHost, raw, result, sha256, upload_messages
from tests.conftest import MakeDaemon
from tests.instances import console_until, small_spec, spawned
from tests.refusals import refused

NOW = Duration()


def guest_bytes(host: ImageHost, folder: Path) -> bytes:
    """The disk image of the test guest; for the fake any sound one."""
    if host.daemon.backend == "fake":
        return hostile.sound_qcow2(folder / "guest").read_bytes()
    return (host.daemon.image_dir / "guest.qcow2").read_bytes()


@pytest.fixture
def base(host: ImageHost, tmp_path: Path) -> str:
    """An evictable image of the test guest, fetched from the web server."""
    data = guest_bytes(host, tmp_path)
    url = host.web.serve("/base", data)
    declared = pb.ImageDeclaration(format=DISK_FORMAT_QCOW2, checksum=sha256(data), evictable=True)
    result(host.pull("base", http={"url": url}, declared=declared))
    return "base"


@contextmanager
def based_on(host: ImageHost, image_id: str) -> Iterator[str]:
    """An instance whose root disk is based on an image."""
    spec = small_spec(backend=host.daemon.backend, boot="disk")
    spec.image.image_id = image_id
    with spawned(host.connection, spec) as instance_id:
        yield instance_id


def aged(host: ImageHost, **request: object) -> pb.ManageImageCacheResponse:
    request.setdefault("max_unused_age", NOW)
    return host.images.ManageImageCache(
        pb.ManageImageCacheRequest(**request),  # type: ignore[arg-type]
        timeout=60,
    )


def test_guest_boots_from_a_pulled_image_which_is_then_in_use(host: ImageHost, base: str) -> None:
    with based_on(host, base) as instance_id:
        console_until(host.connection, instance_id, b"virtrpc guest ready")
        image = host.listed()[base]
        assert list(image.used_by_instance_ids) == [instance_id]
        assert image.HasField("last_used_at")
        assert base not in host.listed(unused_only=True)
        for validate_only in (True, False):
            with refused(grpc.StatusCode.FAILED_PRECONDITION, "IMAGE_IN_USE") as refusal:
                host.images.DeleteImage(
                    pb.DeleteImageRequest(image_id=base, validate_only=validate_only)
                )
            assert refusal.metadata["instance_ids"] == instance_id
        reply = aged(host)
        assert base not in reply.deleted_image_ids
        assert reply.kept_images >= 1
    assert base in host.listed(unused_only=True)
    host.delete(base)


def test_soft_deleted_instance_keeps_its_image(host: ImageHost, base: str) -> None:
    with based_on(host, base) as instance_id:
        host.connection.instances.SoftDeleteInstance(
            instance_pb2.SoftDeleteInstanceRequest(instance_id=instance_id)
        )
        assert base not in aged(host).deleted_image_ids
        with refused(grpc.StatusCode.FAILED_PRECONDITION, "IMAGE_IN_USE"):
            host.delete(base)


def test_disk_that_was_left_behind_keeps_its_image(host: ImageHost, base: str) -> None:
    if host.daemon.backend == "fake":
        return  # its disks are no files
    with based_on(host, base) as instance_id:
        host.connection.instances.DestroyInstance(
            instance_pb2.DestroyInstanceRequest(instance_id=instance_id)
        )
        assert base not in aged(host).deleted_image_ids
        host.connection.instances.CleanupInstance(
            instance_pb2.CleanupInstanceRequest(instance_id=instance_id, destroy_disks=True)
        )
    assert list(aged(host).deleted_image_ids) == [base]


def test_ageing_deletes_what_is_evictable_unused_and_old(host: ImageHost) -> None:
    for image_id in ("old1", "old2", "kept"):
        host.upload(image_id, image_id.encode() * 5000, declared=raw(evictable=True))
    host.upload("precious", b"precious")
    young = aged(host, max_unused_age=Duration(seconds=3600))
    assert not young.deleted_image_ids
    assert young.kept_images == 3
    planned = aged(host, keep_image_ids=["kept"], validate_only=True)
    assert list(planned.deleted_image_ids) == ["old1", "old2"]
    assert {"old1", "old2"} <= set(host.listed())
    reply = aged(host, keep_image_ids=["kept"])
    assert list(reply.deleted_image_ids) == ["old1", "old2"]
    assert reply.freed_bytes >= 40000
    assert (reply.kept_images, reply.deleted_bases) == (1, 0)
    assert reply.store.total_bytes
    assert {"precious", "kept"} <= set(host.listed())
    assert not aged(host, keep_image_ids=["kept"]).deleted_image_ids


def test_image_asked_for_again_is_young_again(host: ImageHost) -> None:
    declared = raw(sha256(b"again"), evictable=True)
    host.upload("again", b"again", declared=declared)
    time_before = host.listed()["again"].created_at.ToNanoseconds()
    host.upload("again", b"", declared=declared)
    age = Duration()
    age.FromNanoseconds(time.time_ns() - time_before)
    assert not aged(host, max_unused_age=age).deleted_image_ids
    assert list(aged(host).deleted_image_ids) == ["again"]


def test_image_that_an_operation_reads_is_not_deleted(make_daemon: MakeDaemon) -> None:
    with make_daemon("--image-cache-interval=0").start() as daemon, daemon.connect() as connection:
        images = image_pb2_grpc.ImageServiceStub(connection.channel)
        images.UploadImage(upload_messages("root", b"r" * 512, declared=raw(evictable=True)))
        spec = small_spec(backend="fake", boot="disk")
        spec.image.image_id = "root"
        spec.labels["fake/spawn_instance.files"] = "delay:60"
        operation = connection.instances.SpawnInstance(
            instance_pb2.SpawnInstanceRequest(instance_id=str(uuid.uuid4()), spec=spec)
        )
        watch = connection.operations.WatchOperation(
            operation_pb2.WatchOperationRequest(operation_id=operation.operation_id), timeout=30
        )
        next(message for message in watch if message.operation.steps)
        with refused(grpc.StatusCode.FAILED_PRECONDITION, "IMAGE_IN_USE"):
            images.DeleteImage(pb.DeleteImageRequest(image_id="root"))
        reply = images.ManageImageCache(pb.ManageImageCacheRequest(max_unused_age=NOW))
        assert not reply.deleted_image_ids
        connection.operations.CancelOperation(
            operation_pb2.CancelOperationRequest(operation_id=operation.operation_id)
        )
        connection.operations.WaitOperation(
            operation_pb2.WaitOperationRequest(operation_id=operation.operation_id)
        )
        images.DeleteImage(pb.DeleteImageRequest(image_id="root"))


def test_daemon_ages_images_by_itself(make_daemon: MakeDaemon) -> None:
    flags = ("--image-cache-interval=0.1", "--image-max-unused-age=0")
    with make_daemon(*flags).start() as daemon, daemon.connect() as connection:
        images = image_pb2_grpc.ImageServiceStub(connection.channel)
        images.UploadImage(upload_messages("old", b"old", declared=raw(evictable=True)))
        images.UploadImage(upload_messages("precious", b"precious"))
        deadline = time.monotonic() + 30
        left = {"old"}
        while "old" in left and time.monotonic() < deadline:
            left = {i.image_id for i in images.ListImages(pb.ListImagesRequest()).images}
        assert "old" not in left
        assert {"precious", "guest"} <= left
        operations = connection.operations.ListOperations(
            operation_pb2.ListOperationsRequest(verb="ManageImageCache")
        ).operations
        assert operations[-1].caller == "daemon:image-cache"


@pytest.mark.libvirt
def test_nothing_is_deleted_while_users_cannot_be_asked(make_daemon: MakeDaemon) -> None:
    """A libvirt that is out of reach: nobody knows what its domains are based on."""
    daemon = make_daemon("--libvirt-uri=qemu+unix:///system?socket=/nowhere", backend="libvirt")
    with daemon.start(wait=False), daemon.connect() as connection:
        images = image_pb2_grpc.ImageServiceStub(connection.channel)
        with refused(grpc.StatusCode.UNAVAILABLE):
            images.ManageImageCache(
                pb.ManageImageCacheRequest(max_unused_age=NOW), wait_for_ready=True, timeout=30
            )
        reply = images.ListImages(pb.ListImagesRequest(), wait_for_ready=True, timeout=30)
        assert reply.freshness.stale
        assert "guest" in {image.image_id for image in reply.images}
