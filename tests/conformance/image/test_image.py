"""ImageService on every backend: uploads, downloads, listing, deletion."""

import os
import threading
import uuid
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from virtrpc.v1 import image_pb2 as pb
from virtrpc.v1 import instance_pb2, operation_pb2
from virtrpc.v1.operation_pb2 import OPERATION_STATE_CANCELLED, OPERATION_STATE_FAILED
from virtrpc.v1.spec_pb2 import DISK_FORMAT_QCOW2, DISK_FORMAT_RAW
from virtrpc.v1.types_pb2 import PageRequest

from tests.conformance.image.conftest import (
    MAX_SIZE,
    TIMEOUT_S,
    ImageHost,
    facts,
    raw,
    sha256,
    upload_messages,
)
from tests.instances import small_spec
from tests.refusals import refused

DATA = bytes(range(256)) * 4096  # 1 MiB


def test_uploaded_image_is_listed_and_comes_back_byte_by_byte(host: ImageHost) -> None:
    declared = raw(sha256(DATA), properties={"hw_disk_bus": "scsi"}, evictable=True)
    reply = host.upload("up", DATA, declared=declared, size_bytes=len(DATA))
    assert not reply.already_there
    image = host.listed()["up"]
    assert facts(image) == facts(reply.image)
    assert image.format == DISK_FORMAT_RAW
    assert image.size_bytes == image.virtual_size_bytes == len(DATA)
    assert image.checksum == image.declared_checksum == sha256(DATA)
    assert image.origin == pb.IMAGE_ORIGIN_UPLOAD
    assert dict(image.properties) == {"hw_disk_bus": "scsi"}
    assert image.evictable
    assert image.HasField("created_at")
    shown, data = host.download("up")
    assert facts(shown) == facts(image)
    assert data == DATA


def test_upload_repeated_with_its_checksum_reads_no_chunk(host: ImageHost) -> None:
    host.upload("again", DATA, declared=raw(sha256(DATA)))
    declared = raw(sha256(DATA), properties={"os_type": "linux"}, evictable=True)
    reply = host.upload("again", b"", declared=declared)
    assert reply.already_there
    assert dict(reply.image.properties) == {"os_type": "linux"}
    assert host.listed()["again"].evictable


def test_upload_repeated_without_a_checksum_is_compared(host: ImageHost) -> None:
    host.upload("again", DATA)
    assert host.upload("again", DATA).already_there
    with refused(grpc.StatusCode.ALREADY_EXISTS, "IMAGE_DIFFERS"):
        host.upload("again", DATA + b"more")
    assert host.download("again")[1] == DATA


@pytest.mark.parametrize(
    "declared",
    [raw(sha256(b"other")), pb.ImageDeclaration(format=DISK_FORMAT_QCOW2)],
    ids=["other bytes", "other format"],
)
def test_id_with_another_image_is_taken(host: ImageHost, declared: pb.ImageDeclaration) -> None:
    host.upload("taken", DATA)
    with refused(grpc.StatusCode.ALREADY_EXISTS, "IMAGE_DIFFERS"):
        host.upload("taken", b"other", declared=declared)


def test_sha512_is_a_checksum_too(host: ImageHost) -> None:
    import hashlib

    declared = raw(f"sha512:{hashlib.sha512(DATA).hexdigest()}")
    image = host.upload("long", DATA, declared=declared).image
    assert (image.checksum, image.declared_checksum) == (sha256(DATA), declared.checksum)
    assert host.upload("long", b"", declared=declared).already_there
    assert host.upload("long", b"", declared=raw(sha256(DATA))).already_there


def test_request_id_gives_the_first_outcome(host: ImageHost) -> None:
    request_id = str(uuid.uuid4())
    first = host.upload("once", DATA, request_id=request_id)
    host.delete("once")
    again = host.upload("once", DATA, request_id=request_id)
    assert again == first
    assert "once" not in host.listed()


def test_upload_is_an_operation_with_steps(host: ImageHost) -> None:
    host.upload("op", DATA)
    listed = host.connection.operations.ListOperations(
        operation_pb2.ListOperationsRequest(verb="UploadImage")
    )
    operation = host.connection.operations.GetOperation(
        operation_pb2.GetOperationRequest(operation_id=listed.operations[0].operation_id)
    )
    assert [step.name for step in operation.steps] == ["fetch", "store"]


@pytest.mark.parametrize(
    ("code", "reason", "header", "data"),
    [
        (grpc.StatusCode.FAILED_PRECONDITION, "CHECKSUM_MISMATCH",
         {"declared": raw(sha256(b"what was meant"))}, DATA),
        (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST", {"size_bytes": 5}, b"four"),
        (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST", {"size_bytes": 3}, b"four"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "IMAGE_TOO_LARGE",
         {"declared": raw(max_size_bytes=1000)}, DATA),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "IMAGE_TOO_LARGE",
         {"size_bytes": MAX_SIZE + 1}, b"x"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "IMAGE_TOO_LARGE",
         {"declared": raw(max_virtual_size_bytes=1000)}, DATA),
    ],
    ids=["checksum", "fewer bytes", "more bytes", "own limit", "daemon's limit", "virtual size"],
)  # fmt: skip
def test_refused_upload_leaves_nothing(
    host: ImageHost, code: grpc.StatusCode, reason: str, header: dict[str, Any], data: bytes
) -> None:
    with refused(code, reason):
        host.upload("bad", data, **header)
    assert "bad" not in host.listed()
    assert host.leftovers() == []


def test_checksum_mismatch_tells_both(host: ImageHost) -> None:
    with refused(grpc.StatusCode.FAILED_PRECONDITION, "CHECKSUM_MISMATCH") as refusal:
        host.upload("bad", DATA, declared=raw(sha256(b"meant")))
    assert refusal.metadata == {"declared": sha256(b"meant"), "found": sha256(DATA)}


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [pb.UploadImageRequest(chunk=b"x")],
        [*upload_messages("bad", b""), *upload_messages("bad", b"")],
        [*upload_messages("../bad", b"x")],
        [*upload_messages("-bad", b"x")],
        [*upload_messages(".bad", b"x")],
        [*upload_messages("b" * 201, b"x")],
        [*upload_messages("bad", b"x", declared=pb.ImageDeclaration())],
    ],
    ids=["nothing", "no header", "two headers", "path", "dash", "dot", "long id", "no format"],
)
def test_upload_that_makes_no_sense_is_refused(
    host: ImageHost, messages: list[pb.UploadImageRequest]
) -> None:
    with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST"):
        host.images.UploadImage(iter(messages), timeout=TIMEOUT_S)
    assert host.leftovers() == []


def test_longest_id_is_stored(host: ImageHost) -> None:
    host.upload("b" * 200, DATA)
    assert host.download("b" * 200)[1] == DATA


def test_upload_that_is_only_validated_changes_nothing(host: ImageHost) -> None:
    reply = host.upload("check", b"", validate_only=True)
    assert not reply.HasField("image")
    with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "IMAGE_TOO_LARGE"):
        host.upload("check", b"", validate_only=True, size_bytes=MAX_SIZE + 1)
    assert "check" not in host.listed()


class HeldUpload:
    """An upload whose caller holds back the rest."""

    def __init__(self, host: ImageHost, image_id: str) -> None:
        self._let_go = threading.Event()
        self._host, self._image_id = host, image_id
        self.call = host.images.UploadImage.future(self._messages(), timeout=TIMEOUT_S)

    def _messages(self) -> Iterator[pb.UploadImageRequest]:
        yield from upload_messages(self._image_id, DATA)
        self._let_go.wait(TIMEOUT_S)

    def operation(self) -> operation_pb2.Operation:
        """Its operation, as soon as bytes have come."""
        operations = self._host.connection.operations
        while True:
            for listed in operations.ListOperations(
                operation_pb2.ListOperationsRequest(verb="UploadImage")
            ).operations:
                if not listed.done:
                    for message in operations.WatchOperation(
                        operation_pb2.WatchOperationRequest(operation_id=listed.operation_id),
                        timeout=TIMEOUT_S,
                    ):
                        if message.operation.message:
                            return message.operation

    def let_go(self) -> None:
        self._let_go.set()


@pytest.fixture
def held(host: ImageHost) -> Iterator[HeldUpload]:
    upload = HeldUpload(host, "held")
    yield upload
    upload.let_go()
    upload.call.cancel()


def test_image_on_its_way_is_busy_and_not_listed(host: ImageHost, held: HeldUpload) -> None:
    operation_id = held.operation().operation_id
    assert "held" not in host.listed()
    for change in (
        lambda: host.upload("held", DATA),
        lambda: host.delete("held"),
        lambda: host.pull("held", file={"path": f"{host.sources}/x"}),
    ):
        with refused(grpc.StatusCode.ABORTED, "IMAGE_BUSY") as refusal:
            change()
        assert refusal.metadata["operation_id"] == operation_id
    held.let_go()
    assert held.call.result().image.size_bytes == len(DATA)


def test_upload_that_breaks_off_leaves_nothing(host: ImageHost, held: HeldUpload) -> None:
    operation = held.operation()
    assert host.leftovers() == [operation.operation_id]
    held.call.cancel()
    ended = host.ended(operation)
    assert (ended.state, ended.error.reason) == (OPERATION_STATE_FAILED, "UPLOAD_BROKEN_OFF")
    assert "held" not in host.listed()
    assert host.leftovers() == []


def test_upload_can_be_cancelled(host: ImageHost, held: HeldUpload) -> None:
    operation = held.operation()
    host.connection.operations.CancelOperation(
        operation_pb2.CancelOperationRequest(operation_id=operation.operation_id)
    )
    assert host.ended(operation).state == OPERATION_STATE_CANCELLED
    with refused(grpc.StatusCode.CANCELLED):
        held.call.result()
    assert "held" not in host.listed()


def test_download_goes_on_at_an_offset(host: ImageHost) -> None:
    image = host.upload("part", DATA).image
    assert host.download("part", offset=1000, expected_checksum=image.checksum)[1] == DATA[1000:]
    assert host.download("part", offset=len(DATA))[1] == b""


def test_download_says_where_each_chunk_is(host: ImageHost) -> None:
    host.upload("part", DATA)
    stream = host.images.DownloadImage(pb.DownloadImageRequest(image_id="part"))
    next(stream)
    place = 0
    for message in stream:
        assert message.chunk.offset == place
        assert len(message.chunk.data) <= 256 << 10
        place += len(message.chunk.data)
    assert place == len(DATA)


@pytest.mark.parametrize(
    ("code", "reason", "request_"),
    [
        (grpc.StatusCode.NOT_FOUND, "IMAGE_NOT_FOUND", {"image_id": "nowhere"}),
        (grpc.StatusCode.OUT_OF_RANGE, "OFFSET_OUT_OF_RANGE", {"offset": len(DATA) + 1}),
        (grpc.StatusCode.FAILED_PRECONDITION, "IMAGE_CHANGED",
         {"expected_checksum": sha256(b"before")}),
        (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST", {"image_id": "../up"}),
    ],
)  # fmt: skip
def test_download_is_refused(
    host: ImageHost, code: grpc.StatusCode, reason: str, request_: dict[str, object]
) -> None:
    host.upload("down", DATA)
    with refused(code, reason):
        host.download(**{"image_id": "down", **request_})  # type: ignore[arg-type]


def test_deletion_does_not_disturb_a_download(host: ImageHost) -> None:
    data = DATA * 16
    host.upload("gone", data, chunk=1 << 20)
    stream = host.images.DownloadImage(pb.DownloadImageRequest(image_id="gone"))
    next(stream)
    host.delete("gone")
    assert b"".join(message.chunk.data for message in stream) == data


def test_damaged_image_is_told_and_not_used(host: ImageHost) -> None:
    host.upload("hurt", DATA)
    os.truncate(host.daemon.image_dir / "hurt.raw", 1000)
    assert host.listed()["hurt"].damaged
    with refused(grpc.StatusCode.FAILED_PRECONDITION, "IMAGE_DAMAGED"):
        host.download("hurt")
    spec = small_spec(backend=host.daemon.backend, boot="disk")
    spec.image.image_id = "hurt"
    with refused(grpc.StatusCode.FAILED_PRECONDITION, "IMAGE_DAMAGED"):
        host.connection.instances.SpawnInstance(
            instance_pb2.SpawnInstanceRequest(
                instance_id=str(uuid.uuid4()), spec=spec, validate_only=True
            )
        )


def test_listing_is_ordered_filtered_and_paged(host: ImageHost) -> None:
    for image_id in ("page3", "page1", "page2"):
        host.upload(image_id, image_id.encode())
    wanted = ["page1", "page2", "page3", "nowhere"]
    request = pb.ListImagesRequest(image_ids=wanted, page=PageRequest(page_size=2))
    first = host.images.ListImages(request)
    assert [image.image_id for image in first.images] == ["page1", "page2"]
    assert first.total_count == 3
    request.page.page_token = first.next_page_token
    second = host.images.ListImages(request)
    assert [image.image_id for image in second.images] == ["page3"]
    assert second.next_page_token == ""
    assert not second.freshness.stale
    assert second.store.total_bytes > second.store.available_bytes > 0
    assert second.store.images_bytes >= 3 * len("page1")
    with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_PAGE_TOKEN"):
        host.images.ListImages(pb.ListImagesRequest(page=request.page))


def test_deletion_is_idempotent(host: ImageHost) -> None:
    host.upload("del", DATA)
    request = pb.DeleteImageRequest(image_id="del")
    check = pb.DeleteImageRequest(image_id="del", validate_only=True)
    host.images.DeleteImage(check)
    assert "del" in host.listed()
    assert not host.images.DeleteImage(request).already_gone
    assert host.images.DeleteImage(request).already_gone
    assert not list(host.daemon.image_dir.glob("del*"))
    assert not list(host.daemon.image_dir.glob(".records/del*"))
    host.upload("del", b"other bytes now")


def test_files_put_there_by_hand_are_images(host: ImageHost) -> None:
    images = host.listed()
    assert {"guest", "kernel", "ramdisk"} <= set(images)
    assert images["guest"].format == DISK_FORMAT_QCOW2
    assert images["kernel"].format == DISK_FORMAT_RAW
    assert not images["guest"].evictable
    kernel = (host.daemon.image_dir / "kernel").read_bytes()
    assert host.download("kernel")[1] == kernel
    assert host.upload("ramdisk2", kernel).image.image_id == "ramdisk2"


def test_file_by_hand_with_the_declared_checksum_is_the_image(host: ImageHost) -> None:
    path = host.daemon.image_dir / "hand.raw"
    path.write_bytes(DATA)
    reply = host.upload("hand", b"", declared=raw(sha256(DATA), evictable=True))
    assert reply.already_there
    assert host.listed()["hand"].evictable


def test_what_is_no_image_is_not_listed(host: ImageHost) -> None:
    store = host.daemon.image_dir
    os.mkfifo(store / "fifo.raw")
    (store / "link.raw").symlink_to("/etc/passwd")
    (store / "folder.raw").mkdir()
    try:
        assert not {"fifo", "link", "folder"} & set(host.listed())
        for image_id in ("fifo", "link", "folder"):
            with refused(grpc.StatusCode.NOT_FOUND, "IMAGE_NOT_FOUND"):
                host.download(image_id)
    finally:
        (store / "fifo.raw").unlink()
        (store / "link.raw").unlink()
        (store / "folder.raw").rmdir()


def test_suffix_in_an_id_reaches_no_other_image(host: ImageHost) -> None:
    host.upload("mine", DATA)
    assert host.images.DeleteImage(pb.DeleteImageRequest(image_id="mine.raw")).already_gone
    assert host.download("mine")[1] == DATA
