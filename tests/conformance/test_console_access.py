"""Accesses to consoles: their tokens open what they are for, once; screens come over tunnels."""

import struct
import uuid
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from virtrpc.v1 import console_pb2 as pb
from virtrpc.v1 import instance_pb2, spec_pb2
from virtrpc.v1.console_pb2 import ConsoleType

from tests.attached import Tunnelled
from tests.conformance.conftest import Guest
from tests.daemon import Connection, DaemonProcess
from tests.instances import TIMEOUT_S, destroyed, small_spec, spawned
from tests.refusals import refused

UNKNOWN = "00000000-0000-4000-8000-00000000dead"
RFB = b"RFB 003.008\n"
# SPICE protocol, "Link messages": a client asks for the main channel, with no capabilities.
SPICE_LINK = struct.pack("<4sIIIIBBIII", b"REDQ", 2, 2, 18, 0, 1, 0, 0, 0, 18)
VNC, SPICE, SERIAL = pb.CONSOLE_TYPE_VNC, pb.CONSOLE_TYPE_SPICE, pb.CONSOLE_TYPE_SERIAL
STOPPED = pb.CONSOLE_CLOSE_REASON_INSTANCE_STOPPED
DESTROYED = pb.CONSOLE_CLOSE_REASON_INSTANCE_DESTROYED


def access(
    connection: Connection, instance_id: str, kind: "ConsoleType.ValueType" = VNC, **fields: Any
) -> pb.GetConsoleResponse:
    request = pb.GetConsoleRequest(instance_id=instance_id, type=kind, **fields)
    return connection.consoles.GetConsole(request, timeout=TIMEOUT_S)


def power(connection: Connection, instance_id: str, *, on: bool) -> None:
    if on:
        power_on = instance_pb2.PowerOnInstanceRequest(instance_id=instance_id)
        connection.instances.PowerOnInstance(power_on, timeout=TIMEOUT_S)
        return
    off = instance_pb2.PowerOffInstanceRequest(instance_id=instance_id)
    off.timeout.FromSeconds(0)
    connection.instances.PowerOffInstance(off, timeout=TIMEOUT_S)


def greeted(tunnel: Tunnelled) -> None:
    tunnel.opened()
    assert tunnel.read(len(RFB)) == RFB


def tunnel_refused(connection: Connection, instance_id: str, token: str) -> None:
    with (
        Tunnelled(connection, instance_id, type=VNC, token=token) as tunnel,
        refused(grpc.StatusCode.PERMISSION_DENIED, "CONSOLE_TOKEN_REFUSED") as refusal,
    ):
        tunnel.opened()
    assert refusal.metadata == {}


@pytest.fixture(scope="module")
def screen(daemon: DaemonProcess, guest: Guest, backend: str) -> Iterator[str]:
    """An instance with a screen, for the tests of this module."""
    spec = small_spec(backend=backend)
    spec.machine.graphics = spec_pb2.GRAPHICS_TYPE_VNC
    with daemon.connect() as connection, spawned(connection, spec) as instance_id:
        yield instance_id


@pytest.fixture
def running(connection: Connection, screen: str) -> Iterator[str]:
    """The same, which the test may switch off."""
    yield screen
    power(connection, screen, on=True)


def test_token_opens_a_screen_once(connection: Connection, screen: str) -> None:
    token = access(connection, screen).token
    with Tunnelled(connection, screen, type=VNC, token=token) as tunnel:
        greeted(tunnel)
        tunnel.write(RFB)
        tunnel.half_close()
        assert tunnel.closed() == pb.CONSOLE_CLOSE_REASON_DETACHED
    tunnel_refused(connection, screen, token)


def test_role_alone_opens_a_screen_too(connection: Connection, screen: str) -> None:
    with (
        Tunnelled(connection, screen, type=VNC) as one,
        Tunnelled(connection, screen, type=VNC) as other,
    ):
        greeted(one)
        greeted(other)


def test_reply_says_where_and_until_when(connection: Connection, screen: str) -> None:
    request: dict[str, Any] = {"lifetime": {"seconds": 30}}
    reply = access(connection, screen, **request)
    assert (reply.type, reply.port, reply.tls_port) == (VNC, 0, 0)
    assert reply.host
    assert len(reply.token) > 40
    assert reply.web_url == ""
    reply.expires_at.ToDatetime()
    longer = access(connection, screen, lifetime={"seconds": 90})
    seconds = longer.expires_at.ToSeconds() - reply.expires_at.ToSeconds()
    assert 60 <= seconds <= 60 + TIMEOUT_S


def test_every_call_makes_another_token(connection: Connection, screen: str) -> None:
    assert access(connection, screen).token != access(connection, screen).token


def test_foreign_token_is_refused(connection: Connection, screen: str, guest: Guest) -> None:
    serial = access(connection, screen, SERIAL).token
    tunnel_refused(connection, screen, serial)
    other = access(connection, guest.instance_id, SERIAL).token
    tunnel_refused(connection, screen, other)


@pytest.mark.parametrize("token", ["x", "x.y", "."])
def test_invented_token_is_refused(connection: Connection, screen: str, token: str) -> None:
    tunnel_refused(connection, screen, token)


def test_half_right_token_is_refused_and_spends_nothing(
    connection: Connection, screen: str
) -> None:
    token = access(connection, screen).token
    name, _, secret = token.partition(".")
    tunnel_refused(connection, screen, f"{name}.{secret[::-1]}")
    with Tunnelled(connection, screen, type=VNC, token=token) as tunnel:
        greeted(tunnel)


def test_stop_ends_connections_and_voids_tokens(connection: Connection, running: str) -> None:
    token, serial = access(connection, running).token, access(connection, running, SERIAL).token
    with Tunnelled(connection, running, type=VNC) as tunnel:
        greeted(tunnel)
        power(connection, running, on=False)
        assert tunnel.closed() == STOPPED
    for refused_while_off in (token, serial):
        tunnel_refused(connection, running, refused_while_off)
    with refused(grpc.StatusCode.FAILED_PRECONDITION, "WRONG_STATE"):
        access(connection, running)
    with (
        Tunnelled(connection, running, type=VNC) as tunnel,
        refused(grpc.StatusCode.FAILED_PRECONDITION, "WRONG_STATE"),
    ):
        tunnel.opened()
    power(connection, running, on=True)
    tunnel_refused(connection, running, token)


def test_hard_reboot_is_another_start(connection: Connection, running: str) -> None:
    token = access(connection, running).token
    with Tunnelled(connection, running, type=VNC) as tunnel:
        greeted(tunnel)
        hard = instance_pb2.RebootInstanceRequest(instance_id=running)
        hard.type = instance_pb2.REBOOT_TYPE_HARD
        connection.instances.RebootInstance(hard, timeout=TIMEOUT_S)
        assert tunnel.closed() == STOPPED
    tunnel_refused(connection, running, token)


def test_pause_is_no_stop(connection: Connection, running: str) -> None:
    token = access(connection, running).token
    pause = instance_pb2.PauseInstanceRequest(instance_id=running)
    connection.instances.PauseInstance(pause, timeout=TIMEOUT_S)
    with Tunnelled(connection, running, type=VNC, token=token) as tunnel:
        greeted(tunnel)
        unpause = instance_pb2.UnpauseInstanceRequest(instance_id=running)
        connection.instances.UnpauseInstance(unpause, timeout=TIMEOUT_S)
        tunnel.half_close()
        assert tunnel.closed() == pb.CONSOLE_CLOSE_REASON_DETACHED


def test_destroy_ends_connections_and_voids_tokens(connection: Connection, backend: str) -> None:
    spec = small_spec(backend=backend)
    spec.machine.graphics = spec_pb2.GRAPHICS_TYPE_VNC
    with spawned(connection, spec) as instance_id:
        token = access(connection, instance_id).token
        with Tunnelled(connection, instance_id, type=VNC) as tunnel:
            greeted(tunnel)
            destroyed(connection, instance_id)
            assert tunnel.closed() in (DESTROYED, STOPPED)  # it stops, then it is gone
    tunnel_refused(connection, instance_id, token)
    with refused(grpc.StatusCode.NOT_FOUND, "INSTANCE_NOT_FOUND"):
        access(connection, instance_id)


@pytest.mark.parametrize("backend", ["fake"], indirect=True)
def test_many_bytes_come_back_as_they_went(
    connection: Connection, screen: str, backend: str
) -> None:
    """The fake's consoles echo; nobody reads this one for a while."""
    sent = bytes(range(256)) * 4096
    with Tunnelled(connection, screen, type=VNC) as tunnel:
        greeted(tunnel)
        for _ in range(8):
            tunnel.write(sent)
        for _ in range(8):
            assert tunnel.read(len(sent)) == sent


def test_instance_without_a_screen(connection: Connection, guest: Guest) -> None:
    with refused(grpc.StatusCode.FAILED_PRECONDITION, "NO_CONSOLE"):
        access(connection, guest.instance_id)
    with (
        Tunnelled(connection, guest.instance_id, type=VNC) as tunnel,
        refused(grpc.StatusCode.FAILED_PRECONDITION, "NO_CONSOLE"),
    ):
        tunnel.opened()


def test_screen_of_another_kind(connection: Connection, screen: str) -> None:
    with refused(grpc.StatusCode.FAILED_PRECONDITION, "NO_CONSOLE"):
        access(connection, screen, SPICE)


def test_spice_comes_over_a_tunnel_for_each_channel(connection: Connection, backend: str) -> None:
    spec = small_spec(backend=backend)
    spec.machine.graphics = spec_pb2.GRAPHICS_TYPE_SPICE
    with spawned(connection, spec) as instance_id:
        token = access(connection, instance_id, SPICE).token
        for given in ({"token": token}, {}):
            with Tunnelled(connection, instance_id, type=SPICE, **given) as tunnel:
                tunnel.opened()
                tunnel.write(SPICE_LINK)
                magic, major, _minor, size = struct.unpack("<4sIII", tunnel.read(16))
                assert (magic, major) == (b"REDQ", 2)
                answer = tunnel.read(size)
                # The guest's end has no error to tell; the fake sends back what it got.
                assert answer[:4] == bytes(4) if backend == "libvirt" else answer == SPICE_LINK[16:]
        with (
            Tunnelled(connection, instance_id, type=SPICE, token=token) as tunnel,
            refused(grpc.StatusCode.PERMISSION_DENIED, "CONSOLE_TOKEN_REFUSED"),
        ):
            tunnel.opened()
        with refused(grpc.StatusCode.FAILED_PRECONDITION, "NO_CONSOLE"):
            access(connection, instance_id, VNC)


@pytest.mark.parametrize("name", ["rdp", "mks"])
def test_consoles_that_qemu_has_not(
    connection: Connection, guest: Guest, backend: str, name: str
) -> None:
    kind = ConsoleType.Value(f"CONSOLE_TYPE_{name.upper()}")
    if backend == "fake":
        reply = access(connection, guest.instance_id, kind)
        assert reply.port
        assert reply.token
        assert (reply.path != "") == (name == "mks")
        return
    with refused(grpc.StatusCode.UNIMPLEMENTED, "CAPABILITY_MISSING") as refusal:
        access(connection, guest.instance_id, kind)
    assert refusal.metadata["capability"] == f"get_console.{name}"


def test_web_console_that_is_not_served(connection: Connection, guest: Guest) -> None:
    with refused(grpc.StatusCode.UNIMPLEMENTED, "CAPABILITY_MISSING") as refusal:
        access(connection, guest.instance_id, pb.CONSOLE_TYPE_WEB)
    assert refusal.metadata["capability"] == "get_console.web"
    serial = access(connection, guest.instance_id, SERIAL)
    assert (serial.port, serial.web_url) == (0, "")


def test_pool_of_consoles(connection: Connection, backend: str) -> None:
    reply = access(connection, "", pb.CONSOLE_TYPE_POOL)
    assert reply.pool.address
    assert reply.token == ""
    assert not reply.HasField("expires_at")
    assert bool(reply.pool.password) == (backend == "fake")


def test_repeat_has_the_first_outcome_without_its_secrets(
    connection: Connection, screen: str
) -> None:
    request_id = str(uuid.uuid4())
    first = access(connection, screen, request_id=request_id)
    repeat = access(connection, screen, request_id=request_id)
    assert repeat.token == ""
    first.ClearField("token")
    assert repeat == first
    with refused(grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_ID_REUSED"):
        access(connection, screen, SERIAL, request_id=request_id)


def test_check_makes_no_token(connection: Connection, screen: str, guest: Guest) -> None:
    assert access(connection, screen, validate_only=True) == pb.GetConsoleResponse()
    with refused(grpc.StatusCode.FAILED_PRECONDITION, "NO_CONSOLE"):
        access(connection, guest.instance_id, validate_only=True)


def test_token_is_on_no_disk(connection: Connection, screen: str, daemon: DaemonProcess) -> None:
    secret = access(connection, screen).token.partition(".")[2].encode()
    files = [path for path in daemon.state_dir.glob("*") if path.is_file()]
    assert {"journal.sqlite", "consoles.sqlite"} <= {path.name for path in files}
    for path in (*files, daemon.log_path):
        assert secret not in path.read_bytes(), path
    assert (daemon.state_dir / "consoles.sqlite").stat().st_mode & 0o777 == 0o600


def test_unknown_instance(connection: Connection) -> None:
    with refused(grpc.StatusCode.NOT_FOUND, "INSTANCE_NOT_FOUND"):
        access(connection, UNKNOWN)
    with (
        Tunnelled(connection, UNKNOWN, type=VNC) as tunnel,
        refused(grpc.StatusCode.NOT_FOUND, "INSTANCE_NOT_FOUND"),
    ):
        tunnel.opened()


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"type": VNC}, ""),
        ({"type": pb.CONSOLE_TYPE_POOL, "instance_id": UNKNOWN}, ""),
        ({"type": 0, "instance_id": UNKNOWN}, "type"),
        ({"type": VNC, "instance_id": "x"}, "instance_id"),
        ({"type": VNC, "instance_id": UNKNOWN, "pooled_type": VNC}, ""),
        ({"type": VNC, "instance_id": UNKNOWN, "lifetime": {"seconds": 3601}}, "lifetime"),
        ({"type": VNC, "instance_id": UNKNOWN, "request_id": "a b"}, "request_id"),
    ],
    ids=["no instance", "instance of a pool", "type", "id", "pooled", "lifetime", "request_id"],
)
def test_malformed_request(connection: Connection, fields: dict[str, Any], field: str) -> None:
    with refused(grpc.StatusCode.INVALID_ARGUMENT) as refusal:
        connection.consoles.GetConsole(pb.GetConsoleRequest(**fields), timeout=TIMEOUT_S)
    assert refusal.fields == ([field] if field else [])


@pytest.mark.parametrize("kind", [pb.CONSOLE_TYPE_SERIAL, pb.CONSOLE_TYPE_RDP, 0])
def test_only_screens_are_tunnelled(connection: Connection, guest: Guest, kind: Any) -> None:
    with (
        Tunnelled(connection, guest.instance_id, type=kind) as tunnel,
        refused(grpc.StatusCode.INVALID_ARGUMENT) as refusal,
    ):
        tunnel.opened()
    assert refusal.fields == ["open.type"]


def test_tunnel_is_opened_first_and_once(connection: Connection, screen: str) -> None:
    data = pb.TunnelConsoleRequest(data=b"x")
    with refused(grpc.StatusCode.INVALID_ARGUMENT, "OPEN_EXPECTED"):
        list(connection.consoles.TunnelConsole(iter([data]), timeout=TIMEOUT_S))
    with Tunnelled(connection, screen, type=VNC) as tunnel:
        greeted(tunnel)
        again = pb.TunnelConsoleOpen(instance_id=screen, type=VNC)
        tunnel.send(pb.TunnelConsoleRequest(open=again))
        with refused(grpc.StatusCode.INVALID_ARGUMENT, "OPEN_EXPECTED"):
            list(tunnel.responses)
