"""What is done inside the guest, with qemu-ga in the test guest."""

from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from virtrpc.v1 import instance_pb2 as pb
from virtrpc.v1.event_pb2 import Event

from tests.conformance.conftest import state_of
from tests.daemon import Connection, DaemonProcess
from tests.events_seen import cursor_now, events_after
from tests.instances import agent_answers, small_spec, spawned, with_interface
from tests.refusals import refused

CANARY = "canary-S3cret"
VERBS: list[tuple[str, dict[str, Any]]] = [
    ("SetAdminPassword", {"password": CANARY}),
    ("InjectFile", {"path": "/root/hello", "content": b"hello"}),
    ("InjectNetworkInfo", {}),
    ("ResetInstanceNetwork", {}),
    ("QuiesceInstance", {}),
    ("UnquiesceInstance", {}),
]
IDS = [verb for verb, _ in VERBS]


@pytest.fixture(scope="module")
def shared(daemon: DaemonProcess, backend: str) -> Iterator[tuple[Connection, str]]:
    """A connection, and a guest that has booted."""
    spec = with_interface(small_spec(backend=backend))
    with daemon.connect() as connection, spawned(connection, spec) as instance_id:
        agent_answers(connection, instance_id)
        yield connection, instance_id


def thawed_by_itself(event: Event) -> bool:
    return event.operation.verb == "UnquiesceInstance" and event.operation.done


def request_of(verb: str, instance_id: str, **arguments: Any) -> Any:
    return getattr(pb, f"{verb}Request")(instance_id=instance_id, **arguments)


@pytest.mark.parametrize(("verb", "arguments"), VERBS, ids=IDS)
def test_a_verb_succeeds_and_may_be_repeated(
    shared: tuple[Connection, str], verb: str, arguments: dict[str, Any]
) -> None:
    connection, instance_id = shared
    for _ in range(2):
        getattr(connection.instances, verb)(request_of(verb, instance_id, **arguments))
    connection.instances.UnquiesceInstance(pb.UnquiesceInstanceRequest(instance_id=instance_id))


def test_quiesce_repeated_sets_the_time_anew(shared: tuple[Connection, str]) -> None:
    connection, instance_id = shared
    request = pb.QuiesceInstanceRequest(instance_id=instance_id)
    request.timeout.FromSeconds(60)
    assert connection.instances.QuiesceInstance(request).filesystems >= 1
    first = state_of(connection, instance_id).thaw_at
    request.timeout.FromSeconds(3600)
    again = connection.instances.QuiesceInstance(request)
    assert again.filesystems == 0, "frozen already"
    assert state_of(connection, instance_id).thaw_at.seconds > first.seconds + 3000
    thaw = pb.UnquiesceInstanceRequest(instance_id=instance_id)
    assert connection.instances.UnquiesceInstance(thaw).filesystems >= 1
    assert not state_of(connection, instance_id).HasField("thaw_at")
    assert connection.instances.UnquiesceInstance(thaw).filesystems == 0


def test_quiesce_thaws_by_itself(shared: tuple[Connection, str]) -> None:
    connection, instance_id = shared
    cursor = cursor_now(connection)
    request = pb.QuiesceInstanceRequest(instance_id=instance_id)
    request.timeout.FromMilliseconds(1)
    assert connection.instances.QuiesceInstance(request).filesystems >= 1
    events_after(connection, cursor, until=thawed_by_itself)
    thaw = pb.UnquiesceInstanceRequest(instance_id=instance_id)
    assert connection.instances.UnquiesceInstance(thaw).filesystems == 0


def test_the_password_is_found_nowhere(
    shared: tuple[Connection, str], daemon: DaemonProcess
) -> None:
    connection, instance_id = shared
    connection.instances.SetAdminPassword(
        pb.SetAdminPasswordRequest(instance_id=instance_id, password=CANARY)
    )
    for path in daemon.folder.rglob("*"):
        if path.is_file() and "images" not in path.parts:
            assert CANARY.encode() not in path.read_bytes(), path


@pytest.mark.parametrize("backend", ["libvirt"], indirect=True)
def test_a_guest_without_an_agent_says_so(connection: Connection, backend: str) -> None:
    spec = small_spec(backend=backend)
    spec.machine.guest_agent_disabled = True
    with spawned(connection, spec) as instance_id:
        request = pb.SetAdminPasswordRequest(instance_id=instance_id, password=CANARY)
        with refused(grpc.StatusCode.FAILED_PRECONDITION, "AGENT_NOT_CONNECTED"):
            connection.instances.SetAdminPassword(request)


@pytest.mark.parametrize("backend", ["libvirt"], indirect=True)
def test_a_file_in_no_folder_is_refused_by_the_agent(shared: tuple[Connection, str]) -> None:
    connection, instance_id = shared
    request = pb.InjectFileRequest(instance_id=instance_id, path="/no/such/file", content=b"x")
    with refused(grpc.StatusCode.FAILED_PRECONDITION, "AGENT_REFUSED"):
        connection.instances.InjectFile(request)
