"""PullImage on every backend: from files of the host, and from a loopback web server."""

import contextlib
import os
import uuid
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from virtrpc.v1 import image_pb2 as pb
from virtrpc.v1 import operation_pb2
from virtrpc.v1.operation_pb2 import OPERATION_STATE_CANCELLED, OPERATION_STATE_FAILED

from tests.conformance.image.conftest import TIMEOUT_S, ImageHost, raw, result, sha256
from tests.conformance.image.web_server import (
    Answer,
    Handler,
    breaking,
    redirect,
    silent,
    status,
    whole,
)
from tests.refusals import refused

DATA = bytes(range(256)) * 8192  # 2 MiB
CODES = {code.value[0]: code for code in grpc.StatusCode}


def failure(operation: operation_pb2.Operation) -> tuple[grpc.StatusCode, str]:
    assert operation.state == OPERATION_STATE_FAILED, operation
    return CODES[operation.error.code], operation.error.reason


def http(url: str, **more: str) -> pb.ImageHttpSource:
    return pb.ImageHttpSource(url=url, **more)


@pytest.fixture
def source(host: ImageHost) -> Path:
    path = host.sources / "disk.img"
    path.write_bytes(DATA)
    return path


def test_image_comes_from_a_file(host: ImageHost, source: Path) -> None:
    declared = raw(sha256(DATA), properties={"os_type": "linux"}, evictable=True)
    operation = host.pull("file", file={"path": str(source)}, declared=declared)
    image = result(operation)
    assert host.listed()["file"] == image
    assert (image.origin, image.source) == (pb.IMAGE_ORIGIN_FILE, str(source))
    assert image.checksum == sha256(DATA)
    assert host.download("file")[1] == DATA
    assert [step.name for step in operation.steps] == ["fetch", "store"]
    assert operation.progress_percent == 100


def test_pull_repeated_changes_properties_alone(host: ImageHost, source: Path) -> None:
    first = result(host.pull("file", file={"path": str(source)}))
    source.unlink()
    again = result(host.pull("file", file={"path": str(source)}, declared=raw(evictable=True)))
    assert again.evictable
    assert again.created_at == first.created_at
    with_checksum = host.pull("file", file={"path": "/x"}, declared=raw(sha256(DATA)))
    assert not result(with_checksum).evictable


def test_other_source_is_another_image(host: ImageHost, source: Path) -> None:
    host.pull("file", file={"path": str(source)})
    other = source.rename(source.with_name("other.img"))
    operation = host.pull("file", file={"path": str(other)})
    assert failure(operation) == (grpc.StatusCode.ALREADY_EXISTS, "IMAGE_DIFFERS")


def test_request_id_gives_the_same_operation(host: ImageHost, source: Path) -> None:
    request_id = str(uuid.uuid4())
    first = host.pull("file", file={"path": str(source)}, request_id=request_id)
    again = host.pull("file", file={"path": str(source)}, request_id=request_id)
    assert again.operation_id == first.operation_id


def test_pull_that_is_only_validated_changes_nothing(host: ImageHost, source: Path) -> None:
    assert host.pull("file", file={"path": str(source)}, validate_only=True).done
    with refused(grpc.StatusCode.NOT_FOUND, "SOURCE_NOT_FOUND"):
        host.pull("file", file={"path": str(source) + "x"}, validate_only=True)
    assert "file" not in host.listed()


def _link_out(folder: Path) -> Path:
    path = folder / "link"
    path.symlink_to("/etc/passwd")
    return path


def _folder_link_out(folder: Path) -> Path:
    (folder / "elsewhere").symlink_to("/etc")
    return folder / "elsewhere" / "passwd"


def _fifo(folder: Path) -> Path:
    os.mkfifo(folder / "fifo")
    return folder / "fifo"


@pytest.mark.parametrize(
    "make",
    [
        lambda _folder: Path("/etc/passwd"),
        lambda folder: folder / ".." / "outside",
        lambda folder: Path(f"{folder}-beside/disk.img"),
        _link_out,
        _folder_link_out,
        _fifo,
        lambda folder: folder,
        lambda _folder: Path("/proc/self/environ"),
    ],
    ids=["elsewhere", "dots", "beside", "link", "folder link", "fifo", "folder", "proc"],
)
def test_path_that_is_not_allowed_is_refused(host: ImageHost, make: Callable[[Path], Path]) -> None:
    folder = host.sources / str(uuid.uuid4())
    folder.mkdir()
    path = make(folder if make in (_link_out, _folder_link_out, _fifo) else host.sources)
    operation = host.pull("file", file={"path": str(path)})
    assert failure(operation) == (grpc.StatusCode.INVALID_ARGUMENT, "SOURCE_NOT_ALLOWED")
    assert not operation.steps


@pytest.mark.parametrize(
    ("url", "declared"),
    [
        ("http://127.0.0.1:1/disk", raw()),
        ("ftp://127.0.0.1/disk", raw(sha256(DATA))),
        ("http://user:word@127.0.0.1/disk", raw(sha256(DATA))),
        ("http://127.0.0.1/disk?query", raw(sha256(DATA))),
        ("file:///etc/passwd", raw(sha256(DATA))),
    ],
    ids=["no checksum", "ftp", "user", "query", "file"],
)
def test_address_that_makes_no_sense_is_refused(
    host: ImageHost, url: str, declared: pb.ImageDeclaration
) -> None:
    with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST"):
        host.pull("web", http=http(url), declared=declared)


def test_image_comes_from_a_web_server(host: ImageHost) -> None:
    url = host.web.serve("/disk", DATA)
    source = http(url, query="signature=hidden&x=1")
    image = result(host.pull("web", http=source, declared=raw(sha256(DATA))))
    assert (image.origin, image.source) == (pb.IMAGE_ORIGIN_HTTP, url)
    assert host.download("web")[1] == DATA
    assert host.web.asked[-1].path == "/disk?signature=hidden&x=1"
    assert "hidden" not in host.daemon.log()
    for path in host.daemon.state_dir.rglob("*"):
        if path.is_file():
            assert b"signature=hidden" not in path.read_bytes(), path


@pytest.mark.parametrize("ranges", [True, False], ids=["by range", "from the start"])
def test_broken_transfer_goes_on(host: ImageHost, ranges: bool) -> None:
    url = host.web.serve("/flaky", breaking(DATA, every=600_000, ranges=ranges))
    asked_before = len(host.web.asked)
    result(host.pull("web", http=http(url), declared=raw(sha256(DATA))))
    assert host.download("web")[1] == DATA
    asked = [asked.headers.get("Range") for asked in host.web.asked[asked_before:]]
    assert asked == [None, "bytes=600000-", "bytes=1200000-", "bytes=1800000-"]
    assert host.web.asked[-1].headers["If-Range"] == '"one"'


def _answer_in_vain(handler: Handler) -> None:
    handler.begin(200, Content_Length=len(DATA))
    handler.wfile.write(DATA[: 1000 if not handler.headers.get("Range") else 0])


def _encoded(handler: Handler) -> None:
    handler.begin(200, Content_Length=4, Content_Encoding="gzip")
    handler.wfile.write(b"gzip")


def _wrong_range(handler: Handler) -> None:
    if handler.headers.get("Range"):
        handler.begin(206, Content_Length=4, Content_Range=f"bytes 7-10/{len(DATA)}")
        handler.wfile.write(b"zzzz")
    else:
        _answer_in_vain(handler)


def _part_of_it(handler: Handler) -> None:
    handler.begin(206, Content_Length=4, Content_Range=f"bytes 0-3/{len(DATA)}")
    handler.wfile.write(DATA[:4])


def _another_version(handler: Handler) -> None:
    again = "Range" in handler.headers
    handler.begin(200, Content_Length=len(DATA), ETag='"two"' if again else '"one"')
    handler.wfile.write(DATA if again else DATA[:1000])


def _another_size(handler: Handler) -> None:
    start = handler.wanted_from
    if start:
        content_range = f"bytes {start}-{len(DATA)}/{len(DATA) + 1}"
        handler.begin(206, Content_Length=len(DATA) + 1 - start, Content_Range=content_range)
        handler.wfile.write(DATA[start:] + b"x")
    else:
        _answer_in_vain(handler)


def _no_http(handler: Handler) -> None:
    handler.wfile.write(b"what do you want\r\n\r\n")


@pytest.mark.parametrize(
    ("answer", "code", "reason"),
    [
        (status(404), grpc.StatusCode.NOT_FOUND, "SOURCE_NOT_FOUND"),
        (status(410), grpc.StatusCode.NOT_FOUND, "SOURCE_NOT_FOUND"),
        (status(401), grpc.StatusCode.PERMISSION_DENIED, "SOURCE_DENIED"),
        (status(403), grpc.StatusCode.PERMISSION_DENIED, "SOURCE_DENIED"),
        (status(500), grpc.StatusCode.UNAVAILABLE, "SOURCE_UNREACHABLE"),
        (status(429), grpc.StatusCode.UNAVAILABLE, "SOURCE_UNREACHABLE"),
        (_answer_in_vain, grpc.StatusCode.UNAVAILABLE, "SOURCE_UNREACHABLE"),
        (_wrong_range, grpc.StatusCode.UNAVAILABLE, "SOURCE_UNREACHABLE"),
        (_part_of_it, grpc.StatusCode.UNAVAILABLE, "SOURCE_UNREACHABLE"),
        (_another_version, grpc.StatusCode.UNAVAILABLE, "SOURCE_UNREACHABLE"),
        (_another_size, grpc.StatusCode.UNAVAILABLE, "SOURCE_UNREACHABLE"),
        (_no_http, grpc.StatusCode.UNAVAILABLE, "SOURCE_UNREACHABLE"),
        (_encoded, grpc.StatusCode.INVALID_ARGUMENT, "SOURCE_NOT_ALLOWED"),
        (whole(DATA[:-1]), grpc.StatusCode.FAILED_PRECONDITION, "CHECKSUM_MISMATCH"),
        (whole(DATA * 17), grpc.StatusCode.RESOURCE_EXHAUSTED, "IMAGE_TOO_LARGE"),
        (redirect("http://169.254.169.254/latest"), grpc.StatusCode.INVALID_ARGUMENT,
         "SOURCE_NOT_ALLOWED"),
        (redirect("file:///etc/passwd"), grpc.StatusCode.INVALID_ARGUMENT, "SOURCE_NOT_ALLOWED"),
        (redirect("http://localhost:1/"), grpc.StatusCode.INVALID_ARGUMENT, "SOURCE_NOT_ALLOWED"),
        (redirect("/bad"), grpc.StatusCode.UNAVAILABLE, "SOURCE_UNREACHABLE"),
    ],
    ids=["404", "410", "401", "403", "500", "429", "breaks off", "other range", "part",
         "other version", "other size", "no http",
         "encoded", "checksum", "too large", "metadata service", "file", "other port", "loop"],
)  # fmt: skip
def test_answer_of_the_server_is_told(
    host: ImageHost, answer: Answer, code: grpc.StatusCode, reason: str
) -> None:
    url = host.web.serve("/bad", answer)
    operation = host.pull("web", http=http(url, query="hide=me"), declared=raw(sha256(DATA)))
    assert failure(operation) == (code, reason)
    assert "hide" not in str(operation)
    assert "web" not in host.listed()
    assert host.leftovers() == []


def test_server_may_send_it_in_parts(host: ImageHost) -> None:
    def parts(handler: Handler) -> None:
        start = handler.wanted_from
        if not start:
            _answer_in_vain(handler)
            return
        part = DATA[start : start + 700_000]
        content_range = f"bytes {start}-{start + len(part) - 1}/{len(DATA)}"
        handler.begin(206, Content_Length=len(part), Content_Range=content_range)
        handler.wfile.write(part)

    url = host.web.serve("/parts", parts)
    result(host.pull("web", http=http(url), declared=raw(sha256(DATA))))
    assert host.download("web")[1] == DATA


def test_size_that_the_server_hides_is_limited_too(host: ImageHost) -> None:
    def endless(handler: Handler) -> None:
        handler.begin(200)
        with contextlib.suppress(OSError):
            while not host.web.released.is_set():
                handler.wfile.write(DATA)

    url = host.web.serve("/endless", endless)
    operation = host.pull("web", http=http(url), declared=raw(sha256(DATA)))
    assert failure(operation) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "IMAGE_TOO_LARGE")
    assert operation.error.metadata["limit_bytes"] == str(32 << 20)


def test_redirections_are_followed(host: ImageHost) -> None:
    host.web.serve("/there", DATA)
    host.web.serve("/4", redirect("/there", 308))
    host.web.serve("/3", redirect("4"))
    host.web.serve("/2", redirect(f"{host.web.url}/3", 301))
    host.web.serve("/1", redirect("/2?a=b", 303))
    url = host.web.serve("/0", redirect("/1"))
    result(host.pull("web", http=http(url), declared=raw(sha256(DATA))))
    assert host.download("web")[1] == DATA


def test_sixth_redirection_is_not_followed(host: ImageHost) -> None:
    for number in range(6):
        host.web.serve(f"/hop{number}", redirect(f"/hop{number + 1}"))
    host.web.serve("/hop6", DATA)
    url = f"{host.web.url}/hop0"
    operation = host.pull("web", http=http(url), declared=raw(sha256(DATA)))
    assert failure(operation) == (grpc.StatusCode.UNAVAILABLE, "SOURCE_UNREACHABLE")


def test_silent_server_does_not_keep_a_pull_from_being_cancelled(host: ImageHost) -> None:
    url = host.web.serve("/silent", silent(DATA, host.web))
    request = pb.PullImageRequest(
        image_id="web", http=http(url), declared=raw(sha256(DATA), max_size_bytes=32 << 20)
    )
    operation = host.images.PullImage(request, timeout=TIMEOUT_S)
    watch = host.connection.operations.WatchOperation(
        operation_pb2.WatchOperationRequest(operation_id=operation.operation_id),
        timeout=TIMEOUT_S,
    )
    seen = next(m.operation for m in watch if m.operation.message.startswith(str(len(DATA))))
    assert seen.phase == "fetch"
    assert 0 < seen.progress_percent <= 90
    assert host.leftovers() == [operation.operation_id]
    with refused(grpc.StatusCode.ABORTED, "IMAGE_BUSY"):
        host.delete("web")
    host.connection.operations.CancelOperation(
        operation_pb2.CancelOperationRequest(operation_id=operation.operation_id)
    )
    assert host.ended(operation).state == OPERATION_STATE_CANCELLED
    assert host.leftovers() == []
