"""The daemon is killed around every write of its journal while images come and go.

All deaths happen in one life: each case has an image of its own, stops at its point, and
the process ends when all have stopped. The next life holds each of them to the contract.
"""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from virtrpc.v1 import image_pb2 as pb
from virtrpc.v1 import image_pb2_grpc, operation_pb2
from virtrpc.v1.operation_pb2 import OPERATION_STATE_FAILED, OPERATION_STATE_SUCCEEDED
from virtrpc.v1.spec_pb2 import DISK_FORMAT_RAW

from tests.crash.dying_daemon import AFTER, BEFORE, DIED, Point, dying
from tests.crash.lives import MORTAL, REAL
from tests.daemon import Connection, DaemonProcess

DATA = b"image" * 100_000
DECLARED = pb.ImageDeclaration(format=DISK_FORMAT_RAW)
# Writes of the journal: accept, two steps, commit, end; accept, one step, end.
WRITES = {"PullImage": 5, "UploadImage": 5, "DeleteImage": 3}
COMMIT = 4


@dataclass(frozen=True)
class Case:
    """A verb that dies at a write."""

    verb: str
    number: int
    side: str

    def __str__(self) -> str:
        return f"{self.verb}-{self.number}-{self.side}"

    @property
    def recorded(self) -> bool:
        """The operation was on disk."""
        return (self.number, self.side) != (1, BEFORE)

    @property
    def committed(self) -> bool:
        """It was past its point of no return."""
        return self.number > COMMIT or (self.number, self.side) == (COMMIT, AFTER)


CASES = [
    Case(verb, number, side)
    for verb, writes in WRITES.items()
    for number in range(1, writes + 1)
    for side in (BEFORE, AFTER)
]


@dataclass(frozen=True)
class Found:
    """What the next life has."""

    images: frozenset[str]
    files: frozenset[str]
    operations: Mapping[str, operation_pb2.Operation]


def call(connection: Connection, case: Case, source: Path) -> None:
    images = image_pb2_grpc.ImageServiceStub(connection.channel)
    name = str(case)
    if case.verb == "PullImage":
        pull = pb.PullImageRequest(
            image_id=name,
            request_id=name,
            declared=DECLARED,
            file=pb.ImageFileSource(path=str(source)),
        )
        operation = images.PullImage(pull, timeout=60)
        wait = operation_pb2.WaitOperationRequest(operation_id=operation.operation_id)
        connection.operations.WaitOperation(wait, timeout=60)
    elif case.verb == "UploadImage":
        images.UploadImage(upload(name), timeout=60)
    else:
        images.DeleteImage(pb.DeleteImageRequest(image_id=name, request_id=name), timeout=60)


def upload(name: str) -> Iterator[pb.UploadImageRequest]:
    header = pb.UploadImageHeader(image_id=name, request_id=name, declared=DECLARED)
    yield pb.UploadImageRequest(header=header)
    yield pb.UploadImageRequest(chunk=DATA)


@contextmanager
def life(folder: Path, plan: str = "") -> Iterator[tuple[DaemonProcess, Connection]]:
    daemon = DaemonProcess(
        folder,
        backend="fake",
        arguments=(f"--image-source-dir={folder}", "--image-cache-interval=0"),
        environment={"GRPC_ENABLE_FORK_SUPPORT": "0"},
        program=(*MORTAL, plan) if plan else REAL,
    )
    with daemon.start(), daemon.connect() as connection:
        yield daemon, connection


@pytest.fixture(scope="module")
def found(short_folder: Callable[[], Path]) -> Iterator[Found]:
    folder = short_folder()
    source = folder / "source"
    source.write_bytes(DATA)
    with life(folder) as (_, connection):
        for case in (case for case in CASES if case.verb == "DeleteImage"):
            image_pb2_grpc.ImageServiceStub(connection.channel).UploadImage(upload(str(case)))
    points = [Point(str(case), case.number, case.side) for case in CASES]
    with (
        life(folder, dying(folder / "points", points)) as (daemon, connection),
        ThreadPoolExecutor(len(CASES)) as callers,
    ):
        calls = [callers.submit(call, connection, case, source) for case in CASES]
        assert daemon.wait() == DIED
        assert all(isinstance(each.exception(), grpc.RpcError) for each in calls)
    with life(folder) as (daemon, connection):
        yield _looked_up(daemon, connection)


def _looked_up(daemon: DaemonProcess, connection: Connection) -> Found:
    listed = connection.operations.ListOperations(operation_pb2.ListOperationsRequest())
    operations = {}
    for operation in listed.operations:
        wait = operation_pb2.WaitOperationRequest(operation_id=operation.operation_id)
        key = f"{operation.verb} {operation.request_id}"
        operations[key] = connection.operations.WaitOperation(wait, timeout=60)
    images = image_pb2_grpc.ImageServiceStub(connection.channel).ListImages(pb.ListImagesRequest())
    files = (path for path in daemon.image_dir.rglob("*") if path.is_file())
    assert all(path.read_bytes() == DATA for path in daemon.image_dir.glob("*.raw"))
    return Found(
        frozenset(image.image_id for image in images.images),
        frozenset(path.name for path in files),
        operations,
    )


@pytest.mark.parametrize("case", CASES, ids=str)
def test_death_leaves_an_image_whole_or_nothing_of_it(found: Found, case: Case) -> None:
    operation = found.operations.get(f"{case.verb} {case}")
    assert (operation is not None) == case.recorded
    deletes = case.verb == "DeleteImage"
    there = not case.recorded if deletes else case.committed
    if operation is not None:
        succeeded = there != deletes
        ended = OPERATION_STATE_SUCCEEDED if succeeded else OPERATION_STATE_FAILED
        assert (operation.done, operation.state) == (True, ended), operation
    assert (str(case) in found.images) == there
    files = {f"{case}.raw", f"{case}.json"}
    assert files & found.files == (files if there else set())


def test_nothing_is_left_on_its_way(found: Found) -> None:
    known = {f"{case}{suffix}" for case in CASES for suffix in (".raw", ".json")}
    assert found.files <= known
