"""The daemon is killed around every write of its journal while an image comes or goes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from virtrpc.v1 import image_pb2 as pb
from virtrpc.v1 import image_pb2_grpc, operation_pb2
from virtrpc.v1.spec_pb2 import DISK_FORMAT_RAW

from tests.crash.dying_daemon import AFTER, BEFORE, DIED, Point
from tests.crash.lives import MORTAL, REAL
from tests.daemon import Connection, DaemonProcess

DATA = b"image" * 100_000
DECLARED = pb.ImageDeclaration(format=DISK_FORMAT_RAW)
# Writes of the journal: accept, two steps, commit, end; accept, one step, end.
WRITES = {"PullImage": 5, "UploadImage": 5, "DeleteImage": 3}
POINTS = [
    Point(verb, "", number, side)
    for verb, writes in WRITES.items()
    for number in range(1, writes + 1)
    for side in (BEFORE, AFTER)
]


class Lives:
    """Daemons over the fake, one after the other, on one state directory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "source").write_bytes(DATA)

    @contextmanager
    def life(self, point: Point | None = None) -> Iterator[tuple[DaemonProcess, Connection]]:
        program = REAL if point is None else (*MORTAL, str(point))
        daemon = DaemonProcess(
            self.folder,
            backend="fake",
            arguments=(f"--image-source-dir={self.folder}", "--image-cache-interval=0"),
            environment={"GRPC_ENABLE_FORK_SUPPORT": "0"},
            program=program,
        )
        with daemon.start(), daemon.connect() as connection:
            yield daemon, connection

    def call(self, connection: Connection, verb: str) -> None:
        images = image_pb2_grpc.ImageServiceStub(connection.channel)
        if verb == "PullImage":
            source = pb.ImageFileSource(path=str(self.folder / "source"))
            request = pb.PullImageRequest(image_id="new", file=source, declared=DECLARED)
            operation = images.PullImage(request, timeout=20)
            connection.operations.WaitOperation(
                operation_pb2.WaitOperationRequest(operation_id=operation.operation_id), timeout=20
            )
        elif verb == "UploadImage":
            images.UploadImage(_upload("new"), timeout=20)
        else:
            images.DeleteImage(pb.DeleteImageRequest(image_id="new"), timeout=20)


def _upload(image_id: str) -> Iterator[pb.UploadImageRequest]:
    header = pb.UploadImageHeader(image_id=image_id, declared=DECLARED)
    yield pb.UploadImageRequest(header=header)
    yield pb.UploadImageRequest(chunk=DATA)


@pytest.fixture
def lives(short_folder: Callable[[], Path]) -> Lives:
    return Lives(short_folder())


@pytest.mark.parametrize("point", POINTS, ids=str)
def test_death_leaves_an_image_whole_or_nothing_of_it(lives: Lives, point: Point) -> None:
    if point.verb == "DeleteImage":
        with lives.life() as (_, connection):
            lives.call(connection, "UploadImage")
    with lives.life(point) as (daemon, connection):
        with pytest.raises(grpc.RpcError):
            lives.call(connection, point.verb)
        assert daemon.wait() == DIED
    with lives.life() as (daemon, connection):
        _holds(daemon, connection, point)


def _holds(daemon: DaemonProcess, connection: Connection, point: Point) -> None:
    images = image_pb2_grpc.ImageServiceStub(connection.channel)
    operation = _ended(connection, point.verb)
    listed = [image.image_id for image in images.ListImages(pb.ListImagesRequest()).images]
    left = sorted(p.name for p in daemon.image_dir.rglob("*") if p.is_file())
    arrived = operation is not None and operation.state == operation_pb2.OPERATION_STATE_SUCCEEDED
    if point.verb == "DeleteImage":
        arrived = operation is None
        if operation is not None:
            assert operation.state == operation_pb2.OPERATION_STATE_SUCCEEDED, operation
    assert listed == (["new"] if arrived else [])
    assert left == (["new.json", "new.raw"] if arrived else [])
    if arrived:
        assert (daemon.image_dir / "new.raw").read_bytes() == DATA


def _ended(connection: Connection, verb: str) -> operation_pb2.Operation | None:
    """The operation that the last life left, at its end; None where it was never on disk."""
    listed = connection.operations.ListOperations(operation_pb2.ListOperationsRequest(verb=verb))
    if not listed.operations:
        return None
    request = operation_pb2.WaitOperationRequest(operation_id=listed.operations[0].operation_id)
    operation = connection.operations.WaitOperation(request, timeout=20)
    assert operation.done
    return operation
