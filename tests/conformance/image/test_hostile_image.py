"""Images that are not what they say are refused on every way in, and nothing they name is read."""

from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import inotify_simple
import pytest
from virtrpc.v1 import image_pb2 as pb
from virtrpc.v1 import instance_pb2
from virtrpc.v1.spec_pb2 import DISK_FORMAT_QCOW2, DISK_FORMAT_RAW

from tests.conformance.image import hostile
from tests.conformance.image.conftest import ImageHost, result, sha256
from tests.instances import small_spec
from tests.refusals import refused

INSTANCE = "0d4f8a52-27c5-4f44-9b57-3a6ad7c0ffee"


@pytest.fixture
def canary(short_folder: Callable[[], Path]) -> Iterator[Path]:
    """A file of the host that nobody may open; the test fails when somebody did."""
    path = short_folder() / "canary"
    path.write_bytes(b"canary: a secret of the host".ljust(1 << 20, b"."))
    path.chmod(0o644)
    with inotify_simple.INotify() as watch:
        watch.add_watch(path, inotify_simple.flags.OPEN | inotify_simple.flags.ACCESS)
        yield path
        assert watch.read(timeout=0) == []


def declared(disk_format: int, **more: object) -> pb.ImageDeclaration:
    return pb.ImageDeclaration(format=disk_format, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", hostile.REFUSED)
def test_hostile_upload_is_refused(
    host: ImageHost, canary: Path, tmp_path: Path, name: str
) -> None:
    make, disk_format, finding = hostile.REFUSED[name]
    make(tmp_path / "image", canary)
    with refused(grpc.StatusCode.FAILED_PRECONDITION, "IMAGE_REFUSED") as refusal:
        host.upload("evil", (tmp_path / "image").read_bytes(), declared=declared(disk_format))
    assert refusal.metadata["finding"] == finding
    assert "evil" not in host.listed()
    assert host.leftovers() == []


def test_hostile_pull_is_refused(host: ImageHost, canary: Path, tmp_path: Path) -> None:
    path = host.sources / "evil"
    hostile.backing_file(path, canary)
    data = path.read_bytes()
    url = host.web.serve("/evil", data)
    checked = declared(DISK_FORMAT_QCOW2, checksum=sha256(data))
    for operation in (
        host.pull("evil", file={"path": str(path)}, declared=declared(DISK_FORMAT_QCOW2)),
        host.pull("evil", http={"url": url}, declared=checked),
    ):
        assert operation.error.reason == "IMAGE_REFUSED"
        assert operation.error.metadata["finding"] == "BACKING_FILE"


@pytest.mark.parametrize(
    "name", ["backing file", "nbd backing", "json backing", "data file", "vmdk extents as qcow2"]
)
def test_hostile_file_put_there_by_hand_makes_no_disk(
    host: ImageHost, canary: Path, name: str
) -> None:
    make, _, finding = hostile.REFUSED[name]
    path = host.daemon.image_dir / "evil.qcow2"
    make(path, canary)
    try:
        assert "evil" not in host.listed()
        spec = small_spec(backend=host.daemon.backend, boot="disk")
        spec.image.image_id = "evil"
        request = instance_pb2.SpawnInstanceRequest(instance_id=INSTANCE, spec=spec)
        operation = host.ended(host.connection.instances.SpawnInstance(request))
        assert operation.error.reason == "IMAGE_REFUSED"
        assert operation.error.metadata["finding"] == finding
        assert operation.error.blockers[0].field == "spec.image.image_id"
    finally:
        path.unlink()


def test_sixty_four_tebibytes_are_too_large(host: ImageHost, tmp_path: Path) -> None:
    hostile.sixty_four_tebibytes(tmp_path / "image", tmp_path)
    image = (tmp_path / "image").read_bytes()
    with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "IMAGE_TOO_LARGE") as refusal:
        host.upload("evil", image, declared=declared(DISK_FORMAT_QCOW2))
    assert refusal.metadata["limit_bytes"] == str(1 << 40)


def test_sound_images_are_taken(host: ImageHost, tmp_path: Path) -> None:
    plain = hostile.sound_qcow2(tmp_path / "plain")
    packed, small, old = tmp_path / "packed", tmp_path / "small", tmp_path / "old"
    hostile.qemu_img("convert", "-c", "-f", "qcow2", "-O", "qcow2", plain, packed)
    hostile.qemu_img("create", "-q", "-f", "qcow2", "-o", "cluster_size=512", small, "100M")
    hostile.qemu_img("create", "-q", "-f", "qcow2", "-o", "compat=0.10", old, "1G")
    for number, path in enumerate((plain, packed, small, old)):
        reply = host.upload(
            f"sound{number}", path.read_bytes(), declared=declared(DISK_FORMAT_QCOW2)
        )
        assert reply.image.virtual_size_bytes in (4 * hostile.CLUSTER, 100 << 20, 1 << 30)


@pytest.mark.parametrize(
    "data",
    [
        bytes(510) + b"\x55\xaa" + bytes(1 << 16),
        bytes(0x8001) + b"CD001" + bytes(1 << 16),
        b"#!/bin/sh\necho kernel with words \xc3\xa4\n" * 200,
        b"x",
    ],
    ids=["boot sector", "iso", "text", "one byte"],
)
def test_plain_bytes_are_raw(host: ImageHost, data: bytes) -> None:
    assert host.upload("plain", data).image.format == DISK_FORMAT_RAW


def test_guest_s_own_image_is_whole(host: ImageHost) -> None:
    """The test guest's image, as it stands in the store, passes the whole inspection."""
    guest = host.daemon.image_dir / "guest.qcow2"
    if host.daemon.backend == "fake":
        hostile.sound_qcow2(host.sources / "guest.qcow2")
    else:
        (host.sources / "guest.qcow2").write_bytes(guest.read_bytes())
    path = str(host.sources / "guest.qcow2")
    result(host.pull("copy", file={"path": path}, declared=declared(DISK_FORMAT_QCOW2)))
