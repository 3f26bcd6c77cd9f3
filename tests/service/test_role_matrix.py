"""Every RPC that a daemon serves, for every role: what the descriptors allow, and nothing else.

Requests are no Protobuf. Who may call is told so; who may not is denied, and the same answer
proves that nobody looked at the request.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor_pool import Default
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from virtrpc.v1 import host_pb2, options_pb2
from virtrpc.v1.options_pb2 import ROLE_ADMIN, ROLE_MIGRATOR, ROLE_OPERATOR, ROLE_VIEWER

from service.verbs import service_names
from tests.authority import Authority, Issued
from tests.daemon import Connection
from tests.refusals import refused
from tests.tls import DOMAIN, TlsDaemon

TIMEOUT_S = 10
NO_PROTOBUF = b"\xff\xff\xff"
BESIDE_THE_CONTRACT = [
    *health_pb2.DESCRIPTOR.services_by_name["Health"].methods,
    *reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"].methods,
]
MAY: Mapping[str, set[int]] = {
    "nobody": set(),
    "viewer": {ROLE_VIEWER},
    "operator": {ROLE_VIEWER, ROLE_OPERATOR},
    "migrator": {ROLE_VIEWER, ROLE_MIGRATOR},
    "admin": {ROLE_VIEWER, ROLE_OPERATOR, ROLE_MIGRATOR, ROLE_ADMIN},
}


def contract() -> Iterator[Any]:
    """Descriptors of the contract's RPCs."""
    for name in service_names():
        yield from Default().FindServiceByName(name).methods


def methods() -> Iterator[tuple[Any, int]]:
    """Every RPC with the role that it needs."""
    for method in contract():
        yield method, method.GetOptions().Extensions[options_pb2.verb].role
    for method in BESIDE_THE_CONTRACT:
        yield method, ROLE_VIEWER


def answer(connection: Connection, method: Any) -> grpc.StatusCode:
    """The status of a call with a request that is none."""
    sides = [
        "stream" if streams else "unary"
        for streams in (method.client_streaming, method.server_streaming)
    ]
    call = getattr(connection.channel, "_".join(sides))
    path = f"/{method.containing_service.full_name}/{method.name}"
    request = iter([NO_PROTOBUF]) if method.client_streaming else NO_PROTOBUF
    try:
        reply = call(path)(request, timeout=TIMEOUT_S)
        for _ in reply if method.server_streaming else ():
            break
    except grpc.RpcError as error:
        code: grpc.StatusCode = error.code()
        return code
    return grpc.StatusCode.OK


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture(scope="module")
def daemon(short_folder: Callable[[], Path], authority: Authority) -> Iterator[TlsDaemon]:
    with TlsDaemon(short_folder(), authority) as served:
        yield served.start()


def test_every_rpc_declares_its_role() -> None:
    assert all(role != options_pb2.ROLE_UNSPECIFIED for _, role in methods())


@pytest.mark.parametrize("name", MAY)
def test_a_role_may_do_what_the_descriptors_say(daemon: TlsDaemon, name: str) -> None:
    with daemon.connect_as(name) as connection:
        wrong = [
            (method.full_name, code)
            for method, role in methods()
            if ((code := answer(connection, method)) == grpc.StatusCode.PERMISSION_DENIED)
            != (role not in MAY[name])
            or code == grpc.StatusCode.UNAUTHENTICATED
        ]
    assert wrong == []


def test_who_may_call_is_told_what_is_wrong_with_the_request(daemon: TlsDaemon) -> None:
    """Else the matrix would take any other failure for leave."""
    told = {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.UNIMPLEMENTED}
    with daemon.connect_as("admin") as connection:
        for method in contract():
            assert answer(connection, method) in told, method.name


NAMELESS: Mapping[str, Callable[[Authority], Issued]] = {
    "two URIs": lambda a: a.issue(uris=[f"{DOMAIN}/admin", f"{DOMAIN}/viewer"]),
    "common name only": lambda a: a.issue(common_name=f"{DOMAIN}/admin"),
    "authority": lambda a: a.issue(uris=[f"{DOMAIN}/admin"], ca=True),
    "no usage": lambda a: a.issue(uris=[f"{DOMAIN}/admin"], usages=[]),
}


@pytest.mark.parametrize("kind", NAMELESS)
def test_certificate_that_names_nobody_may_do_nothing(
    daemon: TlsDaemon, authority: Authority, kind: str
) -> None:
    """The handshake takes these."""
    with daemon.connect_with(NAMELESS[kind](authority).credentials()) as connection:
        answers = {answer(connection, method) for method, _ in methods()}
    assert answers == {grpc.StatusCode.UNAUTHENTICATED}


def test_denial_tells_who_and_what_is_missing(daemon: TlsDaemon) -> None:
    with daemon.connect_as("viewer") as connection:
        request = host_pb2.SetHostEnabledRequest(enabled=False)
        with refused(grpc.StatusCode.PERMISSION_DENIED, "ROLE_MISSING") as refusal:
            connection.hosts.SetHostEnabled(request, timeout=TIMEOUT_S)
    assert refusal.metadata == {"role": "admin"}
    assert f"{DOMAIN}/viewer" in refusal.message
    assert "denied" in daemon.log()


def test_viewer_sees_health_and_reflection(daemon: TlsDaemon) -> None:
    with daemon.connect_as("viewer") as connection:
        health = health_pb2_grpc.HealthStub(connection.channel)
        request = health_pb2.HealthCheckRequest()
        assert health.Check(request, timeout=TIMEOUT_S).status == 1
        watch = health.Watch(request, timeout=TIMEOUT_S)
        assert next(watch).status == 1
        watch.cancel()
        reflection = reflection_pb2_grpc.ServerReflectionStub(connection.channel)
        asked = [reflection_pb2.ServerReflectionRequest(list_services="")]
        (reply,) = reflection.ServerReflectionInfo(iter(asked), timeout=TIMEOUT_S)
        served = {service.name for service in reply.list_services_response.service}
    assert served == _services([*(method for method, _ in methods())])


def _services(found: Sequence[Any]) -> set[str]:
    return {method.containing_service.full_name for method in found}
