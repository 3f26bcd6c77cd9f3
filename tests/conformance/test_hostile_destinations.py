"""What answers at a migration's destination lies, is silent, or is something else."""

import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from virtrpc.v1 import migration_pb2 as pb
from virtrpc.v1.types_pb2 import Error

from tests.daemon import DaemonProcess
from tests.instances import TIMEOUT_S, destroyed, finished, small_spec, spawned
from tests.migrations import Host, ended, instance_at

Answer = Callable[[Any], Any]
_SERVICE = "virtrpc.v1.MigrationService"


def fits(request: pb.CheckDestinationRequest) -> pb.CheckDestinationResponse:
    """Nothing is in the way."""
    check = pb.DestinationCheck(host_name="elsewhere", hypervisor_type="fake")
    check.storage_mark, check.free_memory_mib = "mark", 1 << 20
    check.hypervisor_version = request.source.hypervisor_version
    return pb.CheckDestinationResponse(check=check)


def ready(request: pb.PrepareDestinationRequest) -> pb.PrepareDestinationResponse:
    """All is made ready, for a machine that goes nowhere."""
    data = pb.MigrationData()
    data.CopyFrom(request.data)
    data.prepared, data.migration_uri = True, "unix:/nonexistent/guest"
    return pb.PrepareDestinationResponse(data=data)


def forgotten(_request: Any) -> pb.RollbackDestinationResponse:
    """Nothing is left."""
    return pb.RollbackDestinationResponse()


class Destination(grpc.GenericRpcHandler):
    """A MigrationService of a test's own answers; what it has none for is UNIMPLEMENTED."""

    def __init__(self, **answers: Answer) -> None:
        self._answers = answers
        self.asked: list[str] = []

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        """See GenericRpcHandler."""
        verb = details.method.rpartition("/")[2]
        answer = self._answers.get(verb)
        if answer is None or not details.method.startswith(f"/{_SERVICE}/"):
            return None
        request_class = getattr(pb, f"{verb}Request")

        def reply(raw: bytes, _context: grpc.ServicerContext) -> bytes:
            self.asked.append(verb)
            message = answer(request_class.FromString(raw))
            return message if isinstance(message, bytes) else message.SerializeToString()

        return grpc.unary_unary_rpc_method_handler(reply)


@contextmanager
def served(destination: Destination) -> Iterator[str]:
    """The address of a destination."""
    pool = ThreadPoolExecutor(4)
    server = grpc.server(pool, handlers=[destination])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"grpc://127.0.0.1:{port}"
    finally:
        server.stop(grace=None).wait()
        pool.shutdown()


@pytest.fixture(scope="module")
def here(
    short_folder: Callable[[], Path], guest_images: Callable[[DaemonProcess], None]
) -> Iterator[Host]:
    flags = ["--rollback-patience=0.2"]
    daemon = DaemonProcess(short_folder(), backend="fake", arguments=flags)
    guest_images(daemon)
    with daemon.start(), daemon.connect() as connection:
        yield Host(daemon, connection, daemon.address)


@pytest.fixture
def guest(here: Host) -> Iterator[str]:
    with spawned(here.connection, small_spec(backend="fake")) as instance_id:
        yield instance_id


def asked_for(uri: str, instance_id: str) -> pb.LiveMigrateInstanceRequest:
    return pb.LiveMigrateInstanceRequest(
        instance_id=instance_id, destination_uri=uri, migration_id=str(uuid.uuid4())
    )


def outcome(here: Host, destination: Destination, guest: str) -> Error:
    """The error of a migration there; the guest is here as before."""
    before = instance_at(here, guest)
    with served(destination) as uri:
        error = ended(here, asked_for(uri, guest)).error
    assert instance_at(here, guest) == before
    return error


def test_address_where_nobody_is(here: Host, guest: str) -> None:
    with served(Destination()) as uri:
        pass
    assert ended(here, asked_for(uri, guest)).error.reason == "PEER_UNREACHABLE"


def test_another_service(here: Host, guest: str) -> None:
    assert outcome(here, Destination(), guest).reason == "PEER_MISMATCH"


def test_garbage_for_an_answer(here: Host, guest: str) -> None:
    destination = Destination(CheckDestination=lambda _: b"\xff\xffgarbage")
    assert outcome(here, destination, guest).reason == "PEER_REFUSED"
    assert destination.asked == ["CheckDestination"]


def test_port_that_is_nobodys(here: Host, guest: str) -> None:
    destination = Destination(
        CheckDestination=fits, PrepareDestination=ready, RollbackDestination=forgotten
    )
    assert outcome(here, destination, guest).reason == "MIGRATION_FAILED"
    assert destination.asked[-1] == "RollbackDestination"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("hypervisor_uri", "qemu+ssh://evil/system?command=/bin/sh"),
        ("hypervisor_uri", "qemu+ext:///system?command=/bin/sh"),
        ("migration_uri", "exec:cat"),
        ("instance_id", "0f6f3a52-0d27-4a5f-9d0e-6a8f3f0f7c01"),
        ("migration_id", "0f6f3a52-0d27-4a5f-9d0e-6a8f3f0f7c02"),
        ("destination_uri", "grpc://127.0.0.1:1"),
        ("storage", pb.MIGRATION_STORAGE_SHARED),
        ("released", True),
    ],
)
def test_answer_that_is_not_the_destinations_to_give(
    here: Host, guest: str, field: str, value: object
) -> None:
    """It would be another guest that moved, a command that ran, or files that were removed."""

    def lie(request: pb.PrepareDestinationRequest) -> pb.PrepareDestinationResponse:
        answer = ready(request)
        setattr(answer.data, field, value)
        return answer

    destination = Destination(
        CheckDestination=fits, PrepareDestination=lie, RollbackDestination=forgotten
    )
    assert outcome(here, destination, guest).reason == "PEER_MISMATCH"
    assert destination.asked[-1] == "RollbackDestination"


@pytest.mark.parametrize("verb", ["CheckDestination", "PrepareDestination"])
@pytest.mark.parametrize("stop", ["abort", "destroy"])
def test_silence_keeps_nobody_from_stopping_it(
    here: Host, guest: str, verb: str, stop: str
) -> None:
    asked, over = threading.Event(), threading.Event()

    def silent(_request: Any) -> bytes:
        asked.set()
        over.wait(TIMEOUT_S)
        return b""

    answers: dict[str, Answer] = {
        "CheckDestination": fits, "PrepareDestination": ready, "RollbackDestination": forgotten,
    }  # fmt: skip
    with served(Destination(**{**answers, verb: silent})) as uri:
        request = asked_for(uri, guest)
        operation = here.connection.migrations.LiveMigrateInstance(request, timeout=TIMEOUT_S)
        try:
            assert asked.wait(TIMEOUT_S)
            if stop == "destroy":
                destroyed(here.connection, guest)
            else:
                abort = pb.AbortLiveMigrationRequest(instance_id=guest)
                here.connection.migrations.AbortLiveMigration(abort, timeout=TIMEOUT_S / 4)
            ending = finished(here.connection, operation)
            assert ending.error.reason in ("MIGRATION_CANCELLED", "CANCELLED")
            assert (instance_at(here, guest) is None) == (stop == "destroy")
        finally:
            over.set()


def test_destination_that_does_not_roll_back_frees_the_instance(here: Host, guest: str) -> None:
    def broken(_request: Any) -> Any:
        raise RuntimeError

    destination = Destination(
        CheckDestination=fits, PrepareDestination=ready, RollbackDestination=broken
    )
    assert outcome(here, destination, guest).reason == "MIGRATION_FAILED"
    assert destination.asked.count("RollbackDestination") > 1
