"""`virtrpc image`: the store, and what goes into it and comes out."""

import hashlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from virtrpc.cli.image_upload import CHUNK_BYTES
from virtrpc.v1 import image_pb2 as messages
from virtrpc.v1.image_pb2 import DownloadImageResponse, Image, ImageChunk
from virtrpc.v1.operation_pb2 import Operation
from virtrpc.v1.spec_pb2 import DISK_FORMAT_QCOW2, DISK_FORMAT_RAW

from tests.clients.python.conftest import Cli
from tests.clients.python.scripted import Answer, ScriptedDaemon, refusal
from tests.clients.python.test_cli_long_running import serve, succeeded

BYTES = bytes(range(256)) * 3 * (CHUNK_BYTES // 256)
CHECKSUM = f"sha256:{hashlib.sha256(BYTES).hexdigest()}"
DEBIAN = Image(
    image_id="debian",
    format=DISK_FORMAT_QCOW2,
    size_bytes=len(BYTES),
    virtual_size_bytes=3 << 30,
    checksum=CHECKSUM,
    used_by_instance_ids=["3b241101-e2bb-4255-8caf-4136c566a962"],
    evictable=True,
)
RAW = ("--format", "raw")


def lists(*images: Image) -> Answer:
    def answer(request: Any) -> messages.ListImagesResponse:
        wanted = [i for i in images if not request.image_ids or i.image_id in request.image_ids]
        usage = messages.ImageStoreUsage(
            total_bytes=100 << 30, available_bytes=30 << 30, images_bytes=3 << 29
        )
        return messages.ListImagesResponse(images=wanted, store=usage)

    return answer


def sends(content: bytes, *, breaks_at: int | None = None) -> Answer:
    """The image from the offset asked for; breaks off at a byte, if it is to."""

    def answer(request: Any) -> Iterator[DownloadImageResponse]:
        yield DownloadImageResponse(image=DEBIAN)
        end = len(content) if breaks_at is None else breaks_at
        for offset in range(request.offset, end, CHUNK_BYTES):
            data = content[offset : min(offset + CHUNK_BYTES, end)]
            yield DownloadImageResponse(chunk=ImageChunk(offset=offset, data=data))
        if breaks_at is not None:
            raise refusal(grpc.StatusCode.UNAVAILABLE, reason="SHUTTING_DOWN")

    return answer


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("disk*"))


@pytest.fixture(autouse=True)
def store(daemon: ScriptedDaemon) -> None:
    daemon.answer("ListImages", lists(DEBIAN, Image(image_id="kernel", damaged=True)))


async def test_list_is_a_line_for_each_and_the_room(cli: Cli) -> None:
    outcome = await cli("image", "list")
    header, debian, kernel = (line.split() for line in outcome.out.splitlines())
    assert header[:3] == ["ID", "FORMAT", "SIZE"]
    assert debian[:6] == ["debian", "qcow2", "768", "KiB", "3", "GiB"]
    assert "evictable" in debian
    assert "damaged" in kernel
    assert outcome.err == "1.5 GiB of images; 30 GiB of 100 GiB available\n"


async def test_list_of_ids_is_filtered(cli: Cli, daemon: ScriptedDaemon) -> None:
    outcome = await cli("image", "list", "debian", "--unused", "-q")
    assert (outcome.out, outcome.err) == ("debian\n", "")
    (request,) = daemon.requests["ListImages"]
    assert (list(request.image_ids), request.unused_only) == (["debian"], True)


async def test_an_empty_listing_is_an_empty_list(cli: Cli) -> None:
    document = json.loads((await cli("image", "list", "none", "-o", "json")).out)
    assert document["images"] == []
    assert document["store"]["available_bytes"] == str(30 << 30)


async def test_show_tells_the_checksum_and_its_users(cli: Cli) -> None:
    out = (await cli("image", "show", "debian")).out
    facts = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert facts["checksum"] == CHECKSUM
    assert facts["disk"] == "3 GiB"
    assert "used by" in out
    document = json.loads((await cli("image", "show", "debian", "-o", "json")).out)
    assert document["image_id"] == "debian"


async def test_show_of_an_unknown_image_is_not_found(cli: Cli) -> None:
    outcome = await cli("image", "show", "none")
    assert outcome.code == 69
    assert "IMAGE_NOT_FOUND" in outcome.err


@pytest.mark.parametrize("source", ["/srv/debian.qcow2", "file:///srv/debian.qcow2"])
async def test_pull_from_a_file_of_the_host(cli: Cli, daemon: ScriptedDaemon, source: str) -> None:
    serve(daemon, "PullImage", succeeded(DEBIAN))
    outcome = await cli(
        "image", "pull", "debian", source, "--format", "qcow2", "--checksum", CHECKSUM,
        "--property", "hw_disk_bus=scsi", "--evictable", "--max-size", "2G", "--request-id", "r1",
    )  # fmt: skip
    assert outcome.out == f"debian: qcow2, 768 KiB, {CHECKSUM}\n"
    assert "PullImage running copy" in outcome.err
    (request,) = daemon.requests["PullImage"]
    assert (request.file.path, request.request_id) == ("/srv/debian.qcow2", "r1")
    assert request.declared == messages.ImageDeclaration(
        format=DISK_FORMAT_QCOW2,
        checksum=CHECKSUM,
        properties={"hw_disk_bus": "scsi"},
        evictable=True,
        max_size_bytes=2 << 30,
    )


async def test_pull_from_the_web_without_waiting(cli: Cli, daemon: ScriptedDaemon) -> None:
    daemon.answer("PullImage", lambda _: Operation(operation_id="op-1", verb="PullImage"))
    address = "https://images.example.org/debian?signature=x"
    outcome = await cli("image", "pull", "debian", address, "--no-wait", *RAW)
    assert outcome.out == "debian: operation op-1\n"
    (request,) = daemon.requests["PullImage"]
    assert request.http.url == "https://images.example.org/debian"
    assert request.http.query == "signature=x"
    checked = await cli("image", "pull", "debian", address, "--validate-only", *RAW)
    assert checked.out == "debian: nothing stands in the way\n"


async def test_secrets_of_an_address_are_no_arguments(
    cli: Cli, daemon: ScriptedDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon.answer("PullImage", lambda _: Operation(operation_id="op-1"))
    pull = ("image", "pull", "debian", "https://images.example.org/debian", "--no-wait", *RAW)
    for kind in ("bearer-token", "query"):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"s3cret\n")))
        assert (await cli(*pull, "--secret", kind)).code == 0
    bearer, query = daemon.requests["PullImage"]
    assert (bearer.http.bearer_token, query.http.query) == ("s3cret", "s3cret")
    assert (await cli("image", "pull", "d", "/file", *RAW, "--secret", "query")).code == 2


async def test_upload_sends_a_file_in_pieces(
    cli: Cli, daemon: ScriptedDaemon, tmp_path: Path
) -> None:
    daemon.answer("UploadImage", lambda _: messages.UploadImageResponse(image=DEBIAN))
    (tmp_path / "disk").write_bytes(BYTES)
    outcome = await cli("image", "upload", "debian", str(tmp_path / "disk"), *RAW)
    assert outcome.out == f"debian: qcow2, 768 KiB, {CHECKSUM}\n"
    ((first, *chunks),) = daemon.requests["UploadImage"]
    assert (first.header.image_id, first.header.size_bytes) == ("debian", len(BYTES))
    assert first.header.declared == messages.ImageDeclaration(format=DISK_FORMAT_RAW)
    assert b"".join(message.chunk for message in chunks) == BYTES


async def test_upload_may_compute_the_checksum_and_says_what_was_there(
    cli: Cli, daemon: ScriptedDaemon, tmp_path: Path
) -> None:
    there = messages.UploadImageResponse(image=DEBIAN, already_there=True)
    daemon.answer("UploadImage", lambda _: there)
    (tmp_path / "disk").write_bytes(BYTES)
    arguments = ("image", "upload", "debian", str(tmp_path / "disk"), *RAW, "--compute-checksum")
    assert "was there already" in (await cli(*arguments)).out
    assert json.loads((await cli(*arguments, "-o", "json")).out)["already_there"]
    for first, *_ in daemon.requests["UploadImage"]:
        assert first.header.declared.checksum == CHECKSUM


async def test_checked_upload_sends_no_chunk(
    cli: Cli, daemon: ScriptedDaemon, tmp_path: Path
) -> None:
    daemon.answer("UploadImage", lambda _: messages.UploadImageResponse())
    (tmp_path / "disk").write_bytes(BYTES)
    outcome = await cli("image", "upload", "d", str(tmp_path / "disk"), *RAW, "--validate-only")
    assert outcome.out == "d: nothing stands in the way\n"
    assert [len(messages) for messages in daemon.requests["UploadImage"]] == [1]


async def test_upload_of_no_file_is_wrong_usage(cli: Cli, daemon: ScriptedDaemon) -> None:
    assert (await cli("image", "upload", "debian", "/no/such/file", *RAW)).code == 2
    assert (await cli("image", "upload", "debian", "-")).code == 2, "without a format"
    assert not daemon.requests


async def test_download_goes_on_where_a_stream_broke_off(
    cli: Cli, daemon: ScriptedDaemon, tmp_path: Path
) -> None:
    daemon.answer("DownloadImage", sends(BYTES, breaks_at=CHUNK_BYTES + 5), sends(BYTES))
    target = tmp_path / "disk"
    outcome = await cli("image", "download", "debian", str(target))
    assert outcome.out == f"debian: qcow2, 768 KiB, {CHECKSUM} in {target}\n"
    assert target.read_bytes() == BYTES
    assert names_in(tmp_path) == ["disk"]
    first, second = daemon.requests["DownloadImage"]
    assert (first.offset, first.expected_checksum) == (0, CHECKSUM)
    assert (second.offset, second.expected_checksum) == (CHUNK_BYTES + 5, CHECKSUM)


async def test_download_goes_on_with_what_an_earlier_one_left(
    cli: Cli, daemon: ScriptedDaemon, tmp_path: Path
) -> None:
    gone = refusal(grpc.StatusCode.INTERNAL)
    target = tmp_path / "disk"

    def breaks(request: Any) -> Iterator[DownloadImageResponse]:
        yield from (m for m in sends(BYTES[:CHUNK_BYTES])(request))
        raise gone

    daemon.answer("DownloadImage", breaks, sends(BYTES))
    assert (await cli("image", "download", "debian", str(target))).code == 64 + 13
    assert not target.exists()
    assert (await cli("image", "download", "debian", str(target))).code == 0
    assert target.read_bytes() == BYTES
    assert daemon.requests["DownloadImage"][1].offset == CHUNK_BYTES


async def test_download_of_other_bytes_is_refused_and_kept_nowhere(
    cli: Cli, daemon: ScriptedDaemon, tmp_path: Path
) -> None:
    daemon.answer("DownloadImage", sends(bytes(len(BYTES))))
    outcome = await cli("image", "download", "debian", str(tmp_path / "disk"))
    assert outcome.code == 64 + 15
    assert "CHECKSUM_MISMATCH" in outcome.err
    assert names_in(tmp_path) == []


async def test_image_that_changed_meanwhile_is_not_mixed(
    cli: Cli, daemon: ScriptedDaemon, tmp_path: Path
) -> None:
    by_hand, other = Image(image_id="iso", size_bytes=9), Image(image_id="iso", size_bytes=8)

    def first(_request: Any) -> Iterator[DownloadImageResponse]:
        yield DownloadImageResponse(image=by_hand)
        yield DownloadImageResponse(chunk=ImageChunk(data=b"12345"))
        raise refusal(grpc.StatusCode.UNAVAILABLE)

    def second(_request: Any) -> Iterator[DownloadImageResponse]:
        yield DownloadImageResponse(image=other)

    daemon.answer("ListImages", lists(by_hand))
    daemon.answer("DownloadImage", first, second)
    outcome = await cli("image", "download", "iso", str(tmp_path / "iso"))
    assert outcome.code == 64 + 9
    assert "IMAGE_CHANGED" in outcome.err


async def test_download_replaces_a_file_when_told_to(
    cli: Cli, daemon: ScriptedDaemon, tmp_path: Path
) -> None:
    daemon.answer("DownloadImage", sends(BYTES))
    target = tmp_path / "disk"
    target.write_bytes(b"mine")
    assert (await cli("image", "download", "debian", str(target))).code == 2
    assert target.read_bytes() == b"mine"
    assert (await cli("image", "download", "debian", str(target), "--force")).code == 0
    assert target.read_bytes() == BYTES


async def test_download_to_a_folder_that_is_not_there_says_so(
    cli: Cli, daemon: ScriptedDaemon
) -> None:
    outcome = await cli("image", "download", "debian", "/no/such/folder/disk")
    assert outcome.code == 1
    assert "/no/such/folder/disk" in outcome.err


async def test_delete_goes_on_after_a_failure(cli: Cli, daemon: ScriptedDaemon) -> None:
    def answer(request: Any) -> messages.DeleteImageResponse:
        if request.image_id == "debian":
            raise refusal(grpc.StatusCode.FAILED_PRECONDITION, "in use", reason="IMAGE_IN_USE")
        return messages.DeleteImageResponse(already_gone=request.image_id == "none")

    daemon.answer("DeleteImage", answer)
    outcome = await cli("image", "delete", "debian", "none", "kernel")
    assert outcome.code == 64 + 9
    assert outcome.out == "none: did not exist\nkernel: deleted\n"
    assert "IMAGE_IN_USE" in outcome.err


async def test_cache_says_what_it_would_delete(cli: Cli, daemon: ScriptedDaemon) -> None:
    cleared = messages.ManageImageCacheResponse(
        deleted_image_ids=["old"], freed_bytes=3 << 20, kept_images=2
    )
    daemon.answer("ManageImageCache", lambda _: cleared)
    outcome = await cli(
        "image", "cache", "--unused-for", "60", "--keep", "debian", "--validate-only"
    )
    assert outcome.out == "old: would delete\nwould delete 1, 3 MiB; 2 kept\n"
    (request,) = daemon.requests["ManageImageCache"]
    assert (request.max_unused_age.seconds, list(request.keep_image_ids)) == (60, ["debian"])
    assert (await cli("image", "cache")).out.startswith("old: deleted\n")
    assert not daemon.requests["ManageImageCache"][1].HasField("max_unused_age")
