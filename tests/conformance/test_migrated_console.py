"""Consoles of an instance that moves: each stream says where it went, tokens are void."""

from collections.abc import Iterator

import grpc
import pytest
from virtrpc.v1 import console_pb2 as pb
from virtrpc.v1 import spec_pb2

from tests.attached import Attached, Tunnelled
from tests.instances import console_until, destroyed, small_spec, spawned
from tests.migrations import Host, live_request, migrated
from tests.refusals import refused

TIMEOUT_S = 20.0


@pytest.fixture
def guest(hosts: tuple[Host, Host]) -> Iterator[str]:
    """An instance with a screen on the first host."""
    spec = small_spec(backend="fake")
    spec.machine.graphics = spec_pb2.GRAPHICS_TYPE_VNC
    with spawned(hosts[0].connection, spec) as instance_id:
        yield instance_id
        destroyed(hosts[1].connection, instance_id)


def test_follower_is_told_where_the_console_went(hosts: tuple[Host, Host], guest: str) -> None:
    here, there = hosts
    stream = here.connection.consoles.StreamConsoleOutput(
        pb.StreamConsoleOutputRequest(instance_id=guest, offset=0, follow=True), timeout=TIMEOUT_S
    )
    log_id, seen = next(stream).log_id, 0
    while not seen:
        seen = len(next(stream).data.data)
    request = live_request(guest, there)
    migrated(here, request)
    *_, last = stream
    assert last.WhichOneof("message") == "moved"
    assert last.moved.host_uri == there.uri
    assert last.moved.migration_id == request.migration_id
    with refused(grpc.StatusCode.NOT_FOUND, "INSTANCE_NOT_FOUND") as refusal:
        here.connection.consoles.GetConsoleOutput(
            pb.GetConsoleOutputRequest(instance_id=guest), timeout=TIMEOUT_S
        )
    assert refusal.metadata["host_uri"] == there.uri
    goes_on = there.connection.consoles.GetConsoleOutput(
        pb.GetConsoleOutputRequest(
            instance_id=guest, offset=last.moved.offset, log_id=log_id, max_bytes=1 << 16
        ),
        timeout=TIMEOUT_S,
    )
    assert b"migrated here" in goes_on.data
    assert console_until(there.connection, guest, b"migrated here").count(b"booting") == 1


def tunnel(host: Host, instance_id: str, token: str = "") -> Iterator[pb.TunnelConsoleResponse]:
    opening = pb.TunnelConsoleOpen(instance_id=instance_id, type=pb.CONSOLE_TYPE_VNC, token=token)
    return host.connection.consoles.TunnelConsole(
        iter([pb.TunnelConsoleRequest(open=opening)]), timeout=TIMEOUT_S
    )


def test_accesses_are_told_where_the_instance_went(hosts: tuple[Host, Host], guest: str) -> None:
    here, there = hosts
    with Tunnelled(here.connection, guest, type=pb.CONSOLE_TYPE_VNC) as open_tunnel:
        open_tunnel.opened()
        migrated(here, live_request(guest, there))
        assert open_tunnel.closed() == pb.CONSOLE_CLOSE_REASON_INSTANCE_MOVED
    for kind in (pb.CONSOLE_TYPE_VNC, pb.CONSOLE_TYPE_SERIAL):
        with refused(grpc.StatusCode.NOT_FOUND, "INSTANCE_NOT_FOUND") as refusal:
            here.connection.consoles.GetConsole(
                pb.GetConsoleRequest(instance_id=guest, type=kind), timeout=TIMEOUT_S
            )
        assert refusal.metadata["host_uri"] == there.uri
    with refused(grpc.StatusCode.NOT_FOUND, "INSTANCE_NOT_FOUND") as refusal:
        next(tunnel(here, guest))
    assert refusal.metadata["host_uri"] == there.uri


def test_attachment_ends_and_tokens_are_void(hosts: tuple[Host, Host], guest: str) -> None:
    here, there = hosts
    access = pb.GetConsoleRequest(instance_id=guest, type=pb.CONSOLE_TYPE_VNC)
    token = here.connection.consoles.GetConsole(access, timeout=TIMEOUT_S).token
    with Attached(here.connection, guest) as attached:
        attached.opened()
        migrated(here, live_request(guest, there))
        *_, last = attached.responses
    assert last.moved.host_uri == there.uri
    migrated(there, live_request(guest, here))
    with refused(grpc.StatusCode.PERMISSION_DENIED, "CONSOLE_TOKEN_REFUSED"):
        next(tunnel(here, guest, token))
