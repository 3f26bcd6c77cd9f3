"""GetCapabilities and the RPCs agree, in both directions, and a refused verb does nothing."""

from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from virtrpc.v1 import host_pb2, operation_pb2

from service.verbs import Verb, all_verbs
from tests.daemon import Connection, DaemonProcess
from tests.events_seen import cursor_now
from tests.refusals import DOMAIN, Refusal, refusal_of

TIMEOUT_S = 20
# No request at all: a verb that is carried out here refuses it, and so does nothing.
MALFORMED = b"\xff\xff\xff\xff"
VERBS = list(all_verbs().values())


def capabilities(connection: Connection) -> dict[str, host_pb2.Capability]:
    reply = connection.hosts.GetCapabilities(host_pb2.GetCapabilitiesRequest(), timeout=TIMEOUT_S)
    return {rpc: capability for capability in reply.capabilities for rpc in capability.rpcs}


def call(connection: Connection, verb: Verb, raw: bytes) -> Refusal:
    """Calls a verb with bytes that it must refuse."""
    channel = connection.channel
    with pytest.raises(grpc.RpcError) as caught:
        if verb.client_streaming:
            make = channel.stream_stream if verb.server_streaming else channel.stream_unary
            _drain(make(verb.path)(iter([raw]), timeout=TIMEOUT_S))  # type: ignore[arg-type]
        elif verb.server_streaming:
            _drain(channel.unary_stream(verb.path)(raw, timeout=TIMEOUT_S))  # type: ignore[arg-type]
        else:
            channel.unary_unary(verb.path)(raw, timeout=TIMEOUT_S)  # type: ignore[arg-type]
    return refusal_of(caught.value)


def _drain(replies: object) -> None:
    if isinstance(replies, Iterator):
        for _ in replies:
            pass


@pytest.fixture
def nothing_happens(connection: Connection) -> Iterator[None]:
    """Fails the test when there is another operation or event after it."""

    def operations() -> list[str]:
        listed = connection.operations.ListOperations(operation_pb2.ListOperationsRequest())
        return [operation.operation_id for operation in listed.operations]

    before = (operations(), cursor_now(connection))
    yield
    assert (operations(), cursor_now(connection)) == before


@pytest.fixture(scope="module")
def lacking(short_folder: Callable[[], Path]) -> Iterator[Connection]:
    """A connection to a fake that can do nothing but say so."""
    lacked = {verb.capability for verb in VERBS} - {"get_capabilities"}
    arguments = [f"--fake-lacks={','.join(sorted(lacked))}"]
    daemon = DaemonProcess(short_folder(), backend="fake", arguments=arguments)
    with daemon.start(), daemon.connect() as connected:
        yield connected


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: str(verb.name))
def test_verb_that_is_missing_is_refused_whatever_its_request(
    lacking: Connection, verb: Verb
) -> None:
    if verb.name == "GetCapabilities":
        told = capabilities(lacking).values()
        assert {item.name for item in told if item.supported} == {"get_capabilities"}
        return
    for raw in (b"", MALFORMED):
        refusal = call(lacking, verb, raw)
        assert (refusal.code, refusal.reason) == (
            grpc.StatusCode.UNIMPLEMENTED,
            "CAPABILITY_MISSING",
        )
        assert refusal.metadata["capability"] == verb.capability


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: str(verb.name))
def test_verb_answers_as_its_capability_says(
    connection: Connection, verb: Verb, nothing_happens: None
) -> None:
    capability = capabilities(connection)[f"{verb.service}.{verb.name}"]
    assert capability.name == verb.capability
    refusal = call(connection, verb, MALFORMED)
    if capability.supported:
        assert refusal.code == grpc.StatusCode.INVALID_ARGUMENT
        assert refusal.reason == "INVALID_REQUEST"
        assert (capability.reason, capability.message) == ("", "")
    else:
        assert refusal.code == grpc.StatusCode.UNIMPLEMENTED
        assert (refusal.reason, refusal.domain) == ("CAPABILITY_MISSING", DOMAIN)
        assert refusal.metadata == {"capability": verb.capability}
        assert capability.reason in ("NOT_IMPLEMENTED", "PROBE_FAILED")
        assert capability.message


def test_every_rpc_is_reported_by_one_capability(connection: Connection) -> None:
    reply = connection.hosts.GetCapabilities(host_pb2.GetCapabilitiesRequest(), timeout=TIMEOUT_S)
    reported = [rpc for capability in reply.capabilities for rpc in capability.rpcs]
    assert sorted(reported) == sorted(f"{verb.service}.{verb.name}" for verb in VERBS)


def test_first_road_is_supported(connection: Connection) -> None:
    """What a controller cannot do without: the life of an instance, its console and events."""
    by_rpc = capabilities(connection)
    for rpc in (
        "InstanceService.SpawnInstance",
        "InstanceService.GetInstance",
        "InstanceService.ListInstances",
        "InstanceService.DestroyInstance",
        "InstanceService.CleanupInstance",
        "InstanceService.DeleteInstanceFiles",
        "InstanceService.CheckInstanceOnDisk",
        "InstanceService.RebootInstance",
        "InstanceService.PauseInstance",
        "InstanceService.UnpauseInstance",
        "InstanceService.PowerOffInstance",
        "InstanceService.PowerOnInstance",
        "ConsoleService.GetConsoleOutput",
        "ConsoleService.StreamConsoleOutput",
        "EventService.WatchEvents",
        "OperationService.CancelOperation",
        "HostService.GetHost",
    ):
        assert by_rpc[f"virtrpc.v1.{rpc}"].supported, rpc


def test_unknown_method_is_unimplemented(connection: Connection) -> None:
    method: Callable[..., bytes] = connection.channel.unary_unary(
        "/virtrpc.v1.InstanceService/Explode"
    )
    with pytest.raises(grpc.RpcError) as caught:
        method(b"", timeout=TIMEOUT_S)
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED
