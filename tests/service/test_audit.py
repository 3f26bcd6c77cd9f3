"""The log says who has called for each change, and what came of it; never what is secret."""

import json
import uuid
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from virtrpc.v1 import console_pb2, host_pb2, instance_pb2, operation_pb2, options_pb2

from service.audit import is_audited
from service.verbs import all_verbs
from tests.authority import Authority
from tests.daemon import Connection, DaemonProcess
from tests.instances import TIMEOUT_S, small_spec, spawned
from tests.tls import DOMAIN, TlsDaemon

CANARY = "canary-1c0ffee5"


@pytest.fixture(scope="module")
def daemon(
    short_folder: Callable[[], Path], guest_images: Callable[[DaemonProcess], None]
) -> Iterator[TlsDaemon]:
    with TlsDaemon(short_folder(), Authority(), arguments=["--log-format=json"]) as served:
        guest_images(served)
        yield served.start()


@pytest.fixture(scope="module")
def operator(daemon: TlsDaemon) -> Iterator[Connection]:
    with daemon.connect_as("operator") as connection:
        yield connection


def lines(daemon: DaemonProcess, event: str, **having: object) -> Sequence[Any]:
    """Lines of the log of one kind."""
    logged = (json.loads(line) for line in daemon.log().splitlines())
    return [line for line in logged if line["event"] == event and having.items() <= line.items()]


def test_every_verb_that_changes_something_is_audited() -> None:
    for verb in all_verbs().values():
        if verb.mutates or verb.kind == options_pb2.VERB_KIND_CONTROL:
            assert is_audited(verb), verb.name


def test_change_and_its_end_are_logged_with_the_caller(
    daemon: TlsDaemon, operator: Connection
) -> None:
    with spawned(operator, small_spec(backend="fake")) as instance_id:
        pass
    (destroy,) = lines(daemon, "audit", call="DestroyInstance")
    assert destroy["caller"] == f"{DOMAIN}/operator"
    assert destroy["request"]["instance_id"] == instance_id
    (ended,) = lines(daemon, "operation ended", verb="SpawnInstance", instance_id=instance_id)
    assert (ended["caller"], ended["state"]) == (f"{DOMAIN}/operator", "succeeded")


def test_failure_is_logged_with_its_reason(daemon: TlsDaemon, operator: Connection) -> None:
    instance_id = str(uuid.uuid4())
    request = instance_pb2.PauseInstanceRequest(instance_id=instance_id)
    with pytest.raises(Exception, match="not on this host"):
        operator.instances.PauseInstance(request, timeout=TIMEOUT_S)
    (ended,) = lines(daemon, "operation ended", instance_id=instance_id)
    assert (ended["state"], ended["reason"]) == ("failed", "INSTANCE_NOT_FOUND")


def test_first_message_of_a_stream_is_logged_and_no_more(
    daemon: TlsDaemon, operator: Connection
) -> None:
    with spawned(operator, small_spec(backend="fake")) as instance_id:
        opening = console_pb2.AttachConsoleOpen(
            instance_id=instance_id, mode=console_pb2.CONSOLE_MODE_WRITER
        )
        messages = [
            console_pb2.AttachConsoleRequest(open=opening),
            console_pb2.AttachConsoleRequest(input=CANARY.encode()),
        ]
        stream = operator.consoles.AttachConsole(iter(messages), timeout=TIMEOUT_S)
        next(stream)
        stream.cancel()
    (attached,) = lines(daemon, "audit", call="AttachConsole")
    assert attached["request"]["open"]["instance_id"] == instance_id


def test_reads_are_not_logged(daemon: TlsDaemon, operator: Connection) -> None:
    operator.hosts.GetHost(host_pb2.GetHostRequest(), timeout=TIMEOUT_S)
    operator.operations.ListOperations(operation_pb2.ListOperationsRequest(), timeout=TIMEOUT_S)
    assert not lines(daemon, "audit", call="GetHost")
    assert not lines(daemon, "audit", call="ListOperations")


def test_secrets_are_left_out(daemon: TlsDaemon, operator: Connection) -> None:
    with spawned(operator, small_spec(backend="fake")) as instance_id:
        request = instance_pb2.InjectFileRequest(
            instance_id=instance_id, path="/etc/motd", content=CANARY.encode()
        )
        operator.instances.InjectFile(request, timeout=TIMEOUT_S)
    (injected,) = lines(daemon, "audit", call="InjectFile")
    assert injected["request"] == {"instance_id": instance_id, "path": "/etc/motd"}
    assert CANARY not in daemon.log()
    assert b64encode(CANARY.encode()).decode() not in daemon.log()


def test_large_request_is_short_in_the_log(daemon: TlsDaemon, operator: Connection) -> None:
    with spawned(operator, small_spec(backend="fake")) as instance_id:
        request = instance_pb2.UpdateInstanceMetadataRequest(instance_id=instance_id)
        for number in range(10):
            request.set[f"key-{number}"] = "x" * 1000
        operator.instances.UpdateInstanceMetadata(request, timeout=TIMEOUT_S)
    (updated,) = lines(daemon, "audit", call="UpdateInstanceMetadata")
    assert updated["request"] == {"instance_id": instance_id, "bytes": request.ByteSize()}
