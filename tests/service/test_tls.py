"""Who gets no further than the handshake, and what becomes of streams when certificates change."""

import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import grpc
import pytest
from virtrpc.v1 import event_pb2, host_pb2

from deploy.demo.place import free_port
from tests.authority import CLIENT, DAY, SERVER, Authority, Issued
from tests.conftest import MakeDaemon
from tests.daemon import Connection
from tests.service.test_start import assert_refused, ended
from tests.tls import DOMAIN, TlsDaemon

TIMEOUT_S = 15
HANDSHAKE_S = 10
ADMIN = f"{DOMAIN}/admin"
MakeTlsDaemon = Callable[..., TlsDaemon]


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture(scope="module")
def daemon(short_folder: Callable[[], Path], authority: Authority) -> Iterator[TlsDaemon]:
    """One that keeps its certificate."""
    with TlsDaemon(short_folder(), authority) as served:
        yield served.start()


@pytest.fixture(scope="module")
def silent(daemon: TlsDaemon) -> Iterator[socket.socket]:
    """Somebody who connects, at the first of the tests, and says nothing."""
    with socket.create_connection(("127.0.0.1", daemon.port)) as connected:
        yield connected


@pytest.fixture
def make_tls_daemon(
    short_folder: Callable[[], Path], authority: Authority
) -> Iterator[MakeTlsDaemon]:
    """Makes daemons of the test's own."""
    made: list[TlsDaemon] = []

    def make(*arguments: str) -> TlsDaemon:
        made.append(TlsDaemon(short_folder(), authority, arguments=arguments))
        made[-1].start()
        return made[-1]

    yield make
    for daemon in made:
        daemon.stop()


def hostname(connection: Connection) -> str:
    reply = connection.hosts.GetHost(host_pb2.GetHostRequest(), timeout=TIMEOUT_S)
    return str(reply.host.hostname)


def is_let_in(connection: Connection) -> bool:
    """Whether a call is answered; False where there is no connection to make it on."""
    try:
        return bool(hostname(connection))
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.UNAVAILABLE, error
        return False


def changes_host(connection: Connection, *, enabled: bool) -> None:
    request = host_pb2.SetHostEnabledRequest(enabled=enabled, reason="" if enabled else "test")
    connection.hosts.SetHostEnabled(request, timeout=TIMEOUT_S)


def next_change(stream: Iterator[event_pb2.WatchEventsResponse]) -> str:
    """What the host's next change says."""
    for message in stream:
        if message.event.type == event_pb2.EVENT_TYPE_HOST_CHANGED:
            return message.event.detail
    raise AssertionError("the stream has ended")


def test_caller_with_a_certificate_is_let_in(silent: socket.socket, daemon: TlsDaemon) -> None:
    with daemon.connect_as("viewer") as connection:
        assert is_let_in(connection)


BAD: Mapping[str, Callable[[Authority], grpc.ChannelCredentials]] = {
    "none": lambda a: grpc.ssl_channel_credentials(a.pem),
    "expired": lambda a: a.issue(uris=[ADMIN], starts=-2 * DAY, ends=-DAY).credentials(),
    "of the future": lambda a: a.issue(uris=[ADMIN], starts=DAY, ends=2 * DAY).credentials(),
    "of a server": lambda a: a.issue(uris=[ADMIN], usages=[SERVER]).credentials(),
    "of another authority": lambda a: _trusting(a, Authority().issue(uris=[ADMIN])),
    "of an authority of the same name": lambda a: _trusting(
        a, Authority("test authority").issue(uris=[ADMIN])
    ),
}


def _trusting(authority: Authority, issued: Issued) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(authority.pem, issued.key, issued.cert)


@pytest.mark.parametrize("kind", BAD)
def test_bad_certificate_gets_no_connection(
    daemon: TlsDaemon, authority: Authority, kind: str
) -> None:
    with daemon.connect_with(BAD[kind](authority)) as connection:
        assert not is_let_in(connection)


def test_plaintext_gets_no_connection(daemon: TlsDaemon) -> None:
    with Connection(f"127.0.0.1:{daemon.port}") as connection:
        assert not is_let_in(connection)


def test_loopback_is_no_administrator_where_it_is_reached_by_tls(daemon: TlsDaemon) -> None:
    with (
        daemon.connect_as("nobody") as connection,
        pytest.raises(grpc.RpcError) as caught,
    ):
        hostname(connection)
    assert caught.value.code() == grpc.StatusCode.PERMISSION_DENIED


def test_unix_socket_beside_it_is_the_administrator_s(daemon: TlsDaemon) -> None:
    with daemon.connect() as connection:
        assert is_let_in(connection)


def test_new_certificates_serve_new_connections_while_streams_go_on(
    make_tls_daemon: MakeTlsDaemon,
) -> None:
    daemon = make_tls_daemon()
    new = Authority()
    with daemon.connect_as("admin") as before, daemon.connect() as local:
        request = event_pb2.WatchEventsRequest(snapshot=True)
        stream = before.events.WatchEvents(request, timeout=60)
        next(stream)
        new.host().write(daemon.folder)
        with daemon.connect_as("admin") as of_old_authority:
            assert not is_let_in(of_old_authority)
        with daemon.connect_with(new.issue(uris=[ADMIN]).credentials()) as after:
            changes_host(after, enabled=False)
        assert next_change(stream) == "disabled"
        changes_host(local, enabled=True)
        assert next_change(stream) == "enabled"
        assert is_let_in(before)
        stream.cancel()


def test_certificate_without_its_key_yet_leaves_the_last_in_use(
    make_tls_daemon: MakeTlsDaemon, authority: Authority
) -> None:
    daemon = make_tls_daemon()
    cert, key, _ = daemon.files
    renewed = authority.host()
    cert.write_bytes(renewed.cert)
    with daemon.connect_as("viewer") as connection:
        assert is_let_in(connection)
    assert "the certificate in use stays" in daemon.log()
    key.unlink()
    with daemon.connect_as("viewer") as connection:
        assert is_let_in(connection)
    key.write_bytes(renewed.key)
    with daemon.connect_as("viewer") as connection:
        assert is_let_in(connection)
    assert "certificate read again" in daemon.log()


def test_connection_ends_when_it_is_too_old(make_tls_daemon: MakeTlsDaemon) -> None:
    """Its streams too, after as long again; clients resume by their cursor."""
    daemon = make_tls_daemon("--connection-max-age=1")
    with daemon.connect_as("viewer") as connection:
        stream = connection.events.WatchEvents(event_pb2.WatchEventsRequest(), timeout=TIMEOUT_S)
        with pytest.raises(grpc.RpcError) as caught:
            for _ in stream:
                pass
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
        assert is_let_in(connection)


def test_tls_without_files_is_refused_at_the_start(tmp_path: Path) -> None:
    completed = ended("--listen=grpcs://127.0.0.1:0", state_dir=tmp_path / "state")
    assert_refused(completed, "grpcs://127.0.0.1:0", "--tls-cert")


@pytest.mark.parametrize("fault", ["missing", "another key", "no PEM", "no authority"])
def test_files_that_do_not_fit_are_refused_at_the_start(
    authority: Authority, tmp_path: Path, fault: str
) -> None:
    cert, key, ca = authority.host().write(tmp_path)
    if fault == "missing":
        key.unlink()
    elif fault == "another key":
        key.write_bytes(authority.host().key)
    else:
        (cert if fault == "no PEM" else ca).write_text("nonsense")
    completed = ended(
        *(f"--tls-cert={cert}", f"--tls-key={key}", f"--tls-ca={ca}"),
        "--listen=grpcs://127.0.0.1:0",
        state_dir=tmp_path / "state",
    )
    assert_refused(completed, str(ca if fault == "no authority" else key))


def test_address_open_to_others_is_served_with_tls(
    make_tls_daemon: MakeTlsDaemon, authority: Authority
) -> None:
    port = free_port()
    make_tls_daemon(f"--listen=grpcs://0.0.0.0:{port}")
    credentials = authority.issue(uris=[ADMIN], usages=[CLIENT]).credentials()
    with Connection(f"127.0.0.1:{port}", credentials) as connection:
        assert is_let_in(connection)


def test_insecure_address_is_logged_loudly(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon("--listen=0.0.0.0:0", "--insecure").start()
    assert "INSECURE" in daemon.log()


def test_who_says_nothing_is_cut_off(silent: socket.socket) -> None:
    silent.settimeout(HANDSHAKE_S * 1.5)
    assert silent.recv(1) == b""
