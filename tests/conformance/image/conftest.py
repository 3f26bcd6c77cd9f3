"""A daemon of each backend that may read images from a folder and from a loopback server."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from google.protobuf.message import Message
from virtrpc.v1 import image_pb2 as pb
from virtrpc.v1 import image_pb2_grpc, operation_pb2
from virtrpc.v1.spec_pb2 import DISK_FORMAT_RAW

from tests.conformance.image.web_server import WebServer
from tests.daemon import Connection, DaemonProcess

TIMEOUT_S = 60
MAX_SIZE = 32 << 20


def sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@dataclass
class ImageHost:
    """A daemon, the folder that it may read images from, and its image verbs."""

    daemon: DaemonProcess
    sources: Path
    web: WebServer
    connection: Connection

    @property
    def images(self) -> image_pb2_grpc.ImageServiceStub:
        return image_pb2_grpc.ImageServiceStub(self.connection.channel)

    def listed(self, **filters: object) -> dict[str, pb.Image]:
        reply = self.images.ListImages(pb.ListImagesRequest(**filters), timeout=TIMEOUT_S)  # type: ignore[arg-type]
        return {image.image_id: image for image in reply.images}

    def upload(
        self, image_id: str, data: bytes, *, chunk: int = 65536, **header: object
    ) -> pb.UploadImageResponse:
        return self.images.UploadImage(
            upload_messages(image_id, data, chunk=chunk, **header), timeout=TIMEOUT_S
        )

    def download(self, image_id: str, **request: object) -> tuple[pb.Image, bytes]:
        stream = self.images.DownloadImage(
            pb.DownloadImageRequest(image_id=image_id, **request),  # type: ignore[arg-type]
            timeout=TIMEOUT_S,
        )
        first, *chunks = list(stream)
        return first.image, b"".join(message.chunk.data for message in chunks)

    def pull(self, image_id: str, **request: object) -> operation_pb2.Operation:
        """A pull's operation at its end."""
        declared = request.pop("declared", None) or raw()
        message = pb.PullImageRequest(image_id=image_id, declared=declared, **request)  # type: ignore[arg-type]
        return self.ended(self.images.PullImage(message, timeout=TIMEOUT_S))

    def ended(self, operation: operation_pb2.Operation) -> operation_pb2.Operation:
        if operation.done:
            return operation
        return self.connection.operations.WaitOperation(
            operation_pb2.WaitOperationRequest(operation_id=operation.operation_id),
            timeout=TIMEOUT_S,
        )

    def delete(self, *image_ids: str) -> None:
        for image_id in image_ids:
            self.images.DeleteImage(pb.DeleteImageRequest(image_id=image_id), timeout=TIMEOUT_S)

    def leftovers(self) -> list[str]:
        """Files of images that are on their way."""
        incoming = self.daemon.image_dir / ".incoming"
        return sorted(path.name for path in incoming.glob("*"))


def raw(checksum: str = "", **more: object) -> pb.ImageDeclaration:
    return pb.ImageDeclaration(format=DISK_FORMAT_RAW, checksum=checksum, **more)  # type: ignore[arg-type]


def upload_messages(
    image_id: str, data: bytes, *, chunk: int = 65536, **header: object
) -> Iterator[pb.UploadImageRequest]:
    header.setdefault("declared", raw())
    yield pb.UploadImageRequest(header=pb.UploadImageHeader(image_id=image_id, **header))  # type: ignore[arg-type]
    for start in range(0, len(data), chunk):
        yield pb.UploadImageRequest(chunk=data[start : start + chunk])


def result(operation: operation_pb2.Operation) -> pb.Image:
    assert operation.state == operation_pb2.OPERATION_STATE_SUCCEEDED, operation
    image = pb.Image()
    operation.result.Unpack(image)
    return image


@pytest.fixture(scope="module")
def web() -> Iterator[WebServer]:
    with WebServer() as server:
        yield server


@pytest.fixture(scope="module")
def host(
    backend: str,
    web: WebServer,
    short_folder: Callable[[], Path],
    guest_images: Callable[[DaemonProcess], None],
) -> Iterator[ImageHost]:
    sources = short_folder() / "sources"
    sources.mkdir()
    arguments: Sequence[str] = (
        f"--image-source-dir={sources}",
        f"--image-url-prefix={web.url}/",
        f"--image-max-size={MAX_SIZE}",
        f"--image-max-virtual-size={1 << 40}",
        "--image-cache-interval=0",
    )
    with DaemonProcess(short_folder(), backend=backend, arguments=arguments) as daemon:
        guest_images(daemon)
        with daemon.start().connect() as connection:
            yield ImageHost(daemon, sources, web, connection)


@pytest.fixture(autouse=True)
def nothing_is_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """No test leaves an image, and none on its way."""
    if "host" not in request.fixturenames:
        yield
        return
    host: ImageHost = request.getfixturevalue("host")
    before = set(host.listed())
    yield
    host.delete(*(set(host.listed()) - before))
    assert host.leftovers() == []


def facts(message: Message) -> Message:
    """An image without what changes by itself."""
    copy = type(message)()
    copy.CopyFrom(message)
    for name in ("created_at", "last_used_at"):
        copy.ClearField(name)
    return copy
