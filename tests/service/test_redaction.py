"""What is marked secret is in no file, log, operation or reply of the daemon."""

import uuid
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from virtrpc.v1 import instance_pb2, operation_pb2, options_pb2

from backends.redaction import redacted
from backends.specification import same_specification
from service.verbs import all_verbs
from tests.conftest import MakeDaemon
from tests.daemon import Connection, DaemonProcess
from tests.events_seen import cursor_now, events_after
from tests.instances import destroyed
from tests.refusals import refused

CANARY = "canary-7f3a9c51"
MESSAGES = sorted(
    {kind for verb in all_verbs().values() for kind in (verb.request_class, verb.response_class)},
    key=lambda kind: kind.DESCRIPTOR.full_name,
)
TIMEOUT_S = 30


def full(descriptor: Descriptor, *, text: str, depth: int = 6) -> Message:
    """A message with every field set; strings and bytes are `text`, secret ones the canary."""
    message = GetMessageClass(descriptor)()
    for field in descriptor.fields:
        if field.message_type is not None and depth == 0:
            continue
        _set(message, field, text=text, depth=depth)
    return message


def _set(message: Message, field: FieldDescriptor, *, text: str, depth: int) -> None:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        _set_entry(getattr(message, field.name), field.message_type, text=text, depth=depth)
    elif field.is_repeated:
        getattr(message, field.name).append(_value(field, text=text, depth=depth))
    elif field.message_type is not None:
        getattr(message, field.name).CopyFrom(_value(field, text=text, depth=depth))
    elif field.containing_oneof is None or message.WhichOneof(field.containing_oneof.name) is None:
        setattr(message, field.name, _value(field, text=text, depth=depth))


def _set_entry(entries: Any, descriptor: Descriptor, *, text: str, depth: int) -> None:
    key, value = descriptor.fields_by_name["key"], descriptor.fields_by_name["value"]
    if value.message_type is not None:
        entries[_value(key, text=text, depth=0)].CopyFrom(_value(value, text=text, depth=depth - 1))
    else:
        entries[_value(key, text=text, depth=0)] = _value(value, text=text, depth=0)


def _value(field: FieldDescriptor, *, text: str, depth: int) -> Any:
    if field.message_type is not None:
        return full(field.message_type, text=text, depth=depth - 1)
    secret = field.GetOptions().Extensions[options_pb2.secret]
    if field.type == FieldDescriptor.TYPE_STRING:
        return CANARY if secret else text
    if field.type == FieldDescriptor.TYPE_BYTES:
        return (CANARY if secret else text).encode()
    return 1 if field.type != FieldDescriptor.TYPE_BOOL else True


@pytest.mark.parametrize("kind", MESSAGES, ids=lambda kind: str(kind.DESCRIPTOR.name))
def test_redacted_message_has_no_secret_and_all_the_rest(kind: type[Message]) -> None:
    message = full(kind.DESCRIPTOR, text="plain")  # type: ignore[arg-type]
    copy = redacted(message)
    assert CANARY.encode() not in copy.SerializeToString()
    without = full(kind.DESCRIPTOR, text="plain")  # type: ignore[arg-type]
    assert copy.SerializeToString().count(b"plain") == without.SerializeToString().count(b"plain")


def test_redaction_leaves_the_message_itself_alone() -> None:
    request = full(instance_pb2.SpawnInstanceRequest.DESCRIPTOR, text="plain")
    before = request.SerializeToString(deterministic=True)
    redacted(request)
    assert request.SerializeToString(deterministic=True) == before


def test_other_secrets_make_no_other_specification() -> None:
    """They are kept nowhere, so there is nothing to compare them with."""
    one, other = request_with_canary().spec, request_with_canary().spec
    other.guest.admin_password = "another"  # noqa: S105 - a test
    other.guest.user_data = b""
    assert same_specification(one, other)
    other.guest.hostname = "another"
    assert not same_specification(one, other)


@pytest.fixture
def daemon(make_daemon: MakeDaemon) -> DaemonProcess:
    """A fake that says everything it can."""
    return make_daemon("--log-level=debug").start()


@pytest.fixture
def connection(daemon: DaemonProcess) -> Iterator[Connection]:
    with daemon.connect() as connected:
        yield connected


def request_with_canary(*, image: str = "guest") -> instance_pb2.SpawnInstanceRequest:
    request = instance_pb2.SpawnInstanceRequest(instance_id=str(uuid.uuid4()), request_id="r1")
    request.spec.flavor.vcpus, request.spec.flavor.memory_mib = 1, 96
    request.spec.image.image_id = image
    request.spec.guest.admin_password = CANARY
    request.spec.guest.user_data = f"#!/bin/sh\necho {CANARY}\n".encode()
    request.spec.guest.files.add(path="/etc/canary", content=CANARY.encode())
    return request


def spawn(
    connection: Connection, request: instance_pb2.SpawnInstanceRequest
) -> operation_pb2.Operation:
    operation = connection.instances.SpawnInstance(request, timeout=TIMEOUT_S)
    wait = operation_pb2.WaitOperationRequest(operation_id=operation.operation_id)
    return connection.operations.WaitOperation(wait, timeout=TIMEOUT_S)


def files_with_canary(daemon: DaemonProcess) -> list[str]:
    return [
        str(path)
        for path in daemon.folder.rglob("*")
        if path.is_file() and CANARY.encode() in path.read_bytes()
    ]


def told(connection: Connection, instance_id: str) -> bytes:
    """Everything that the daemon tells of an instance and its operations."""
    listing = instance_pb2.ListInstancesRequest(view=instance_pb2.INSTANCE_VIEW_FULL)
    instances = connection.instances.ListInstances(listing, timeout=TIMEOUT_S)
    operations = connection.operations.ListOperations(operation_pb2.ListOperationsRequest())
    replies: list[Message] = [instances, operations]
    for operation in operations.operations:
        get = operation_pb2.GetOperationRequest(operation_id=operation.operation_id)
        replies.append(connection.operations.GetOperation(get, timeout=TIMEOUT_S))
    if any(instance.instance_id == instance_id for instance in instances.instances):
        for fresh in (False, True):
            one = instance_pb2.GetInstanceRequest(instance_id=instance_id, fresh=fresh)
            replies.append(connection.instances.GetInstance(one, timeout=TIMEOUT_S))
    return b"".join(reply.SerializeToString() for reply in replies)


def test_secrets_of_a_spawn_are_on_its_config_drive_alone(
    daemon: DaemonProcess, connection: Connection
) -> None:
    request = request_with_canary()
    operation = spawn(connection, request)
    assert operation.state == operation_pb2.OPERATION_STATE_SUCCEEDED
    assert CANARY.encode() not in told(connection, request.instance_id)
    drive = daemon.state_dir / "fake" / request.instance_id / "config.iso"
    assert files_with_canary(daemon) == [str(drive)]
    destroyed(connection, request.instance_id)
    assert files_with_canary(daemon) == []


def test_secrets_of_a_spawn_that_fails_are_nowhere(
    daemon: DaemonProcess, connection: Connection
) -> None:
    request = request_with_canary(image="missing")
    operation = spawn(connection, request)
    assert operation.state == operation_pb2.OPERATION_STATE_FAILED
    assert CANARY.encode() not in told(connection, request.instance_id)
    assert files_with_canary(daemon) == []


def test_secret_that_breaks_its_rule_is_not_repeated_in_the_refusal(
    daemon: DaemonProcess, connection: Connection
) -> None:
    request = request_with_canary()
    request.spec.guest.admin_password = f"{CANARY}\n"
    with refused(grpc.StatusCode.INVALID_ARGUMENT) as refusal:
        connection.instances.SpawnInstance(request, timeout=TIMEOUT_S)
    assert refusal.fields == ["spec.guest.admin_password"]
    assert CANARY not in repr(refusal)
    assert files_with_canary(daemon) == []


def test_events_tell_no_secret(daemon: DaemonProcess, connection: Connection) -> None:
    cursor = cursor_now(connection)
    request = request_with_canary()
    spawn(connection, request)
    events = events_after(
        connection,
        cursor,
        until=lambda event: event.operation.done and event.instance_id == request.instance_id,
    )
    assert len(events) > 3
    assert all(CANARY.encode() not in event.SerializeToString() for event in events)
