"""A store that is full: refused, and nothing partial is left."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from virtrpc.v1 import image_pb2 as pb

from tests.conformance.image.conftest import ImageHost, raw, sha256
from tests.conformance.image.web_server import Handler, WebServer
from tests.daemon import DaemonProcess
from tests.refusals import refused

ROOM = 4 << 20
DATA = b"d" * (8 << 20)


@pytest.fixture(scope="module")
def small(
    web: WebServer,
    short_folder: Callable[[], Path],
    guest_images: Callable[[DaemonProcess], None],
) -> Iterator[ImageHost]:
    """A daemon whose image store is a small filesystem of its own."""
    folder = short_folder()
    daemon = DaemonProcess(
        folder,
        backend="fake",
        arguments=(f"--image-url-prefix={web.url}/", f"--image-source-dir={folder}"),
    )
    daemon.image_dir.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={ROOM}", "tmpfs", str(daemon.image_dir)]
    subprocess.run(mount, check=True)
    try:
        guest_images(daemon)
        with daemon.start(), daemon.connect() as connection:
            yield ImageHost(daemon, folder, web, connection)
    finally:
        subprocess.run(["umount", str(daemon.image_dir)], check=True)


def files(host: ImageHost) -> set[str]:
    return {str(path) for path in host.daemon.image_dir.rglob("*") if path.is_file()}


@pytest.fixture(autouse=True)
def nothing_partial(small: ImageHost) -> Iterator[None]:
    before = (files(small), small.listed().keys())
    yield
    assert (files(small), small.listed().keys()) == before


@pytest.mark.parametrize("size_bytes", [0, len(DATA)], ids=["unknown", "known"])
def test_upload_into_a_full_store(small: ImageHost, size_bytes: int) -> None:
    with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "NO_ROOM"):
        small.upload("big", DATA, size_bytes=size_bytes, chunk=1 << 20)


def test_room_is_looked_for_before_a_chunk_is_read(small: ImageHost) -> None:
    with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "NO_ROOM"):
        small.upload("big", b"", size_bytes=len(DATA), validate_only=True)


def test_pull_of_a_file_into_a_full_store(small: ImageHost) -> None:
    path = small.sources / "big"
    path.write_bytes(DATA)
    operation = small.pull("big", file={"path": str(path)})
    assert operation.error.reason == "NO_ROOM"
    path.unlink()


def test_pull_from_the_web_into_a_full_store(small: ImageHost) -> None:
    def unsized(handler: Handler) -> None:
        handler.begin(200)
        handler.wfile.write(DATA)

    url = small.web.serve("/big", unsized)
    operation = small.pull("big", http=pb.ImageHttpSource(url=url), declared=raw(sha256(DATA)))
    assert operation.error.reason == "NO_ROOM"


def test_store_that_was_full_takes_what_fits(small: ImageHost) -> None:
    small.upload("small", DATA[: ROOM // 4])
    small.delete("small")
