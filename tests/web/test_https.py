"""The web console by TLS: the daemon's certificate, no plaintext, and the same refusals."""

import asyncio
import socket
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import pytest
from virtrpc.v1 import console_pb2 as pb
from virtrpc.v1 import spec_pb2

from deploy.demo.place import free_port
from tests.authority import Authority
from tests.daemon import Connection, DaemonProcess
from tests.instances import TIMEOUT_S, small_spec, spawned
from tests.service.test_start import assert_refused, ended
from tests.tls import TlsDaemon


@dataclass(frozen=True)
class SecureHost:
    """A daemon with a web console by TLS, and an instance with a screen."""

    daemon: TlsDaemon
    connection: Connection
    instance_id: str
    base: str

    @property
    def socket(self) -> str:
        """Address of the WebSocket."""
        return f"{self.base}/console/socket"

    def access(self) -> pb.GetConsoleResponse:
        """A new access to its serial console."""
        request = pb.GetConsoleRequest(instance_id=self.instance_id, type=pb.CONSOLE_TYPE_SERIAL)
        return self.connection.consoles.GetConsole(request, timeout=TIMEOUT_S)


@pytest.fixture(scope="module")
def host(
    short_folder: Callable[[], Path], guest_images: Callable[[DaemonProcess], None]
) -> Iterator[SecureHost]:
    base = f"https://127.0.0.1:{free_port()}"
    spec = small_spec(backend="fake")
    spec.machine.graphics = spec_pb2.GRAPHICS_TYPE_VNC
    with TlsDaemon(short_folder(), Authority(), arguments=[f"--http={base}"]) as daemon:
        guest_images(daemon)
        with (
            daemon.start().connect() as connection,
            spawned(connection, spec) as instance_id,
        ):
            yield SecureHost(daemon, connection, instance_id, base)


def trusting(authority: Authority) -> ssl.SSLContext:
    return ssl.create_default_context(cadata=authority.pem.decode())


def shake_hands(host: SecureHost, context: ssl.SSLContext) -> None:
    address = urlsplit(host.base)
    with (
        socket.create_connection((address.hostname, address.port), 10) as connection,
        context.wrap_socket(connection, server_hostname=address.hostname),
    ):
        pass


async def test_page_is_told_by_https_and_served(host: SecureHost) -> None:
    access = host.access()
    assert access.web_url.startswith(f"{host.base}/console/serial#")
    async with (
        aiohttp.ClientSession() as session,
        session.get(access.web_url, ssl=trusting(host.daemon.authority)) as page,
    ):
        assert page.status == 200


async def test_token_opens_a_console(host: SecureHost) -> None:
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(
            host.socket, ssl=trusting(host.daemon.authority), headers={"Origin": host.base}
        ) as socket,
    ):
        await socket.send_json({"page": "serial", "token": host.access().token})
        assert "opened" in await socket.receive_json(timeout=TIMEOUT_S)


async def test_page_without_tls_is_another_origin(host: SecureHost) -> None:
    headers = {"Origin": host.base.replace("https", "http")}
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await session.ws_connect(
                host.socket, ssl=trusting(host.daemon.authority), headers=headers
            )
    assert caught.value.status == 403


async def test_plaintext_is_not_answered(host: SecureHost) -> None:
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.ClientError):
            await session.get(host.base.replace("https", "http"))


async def test_new_certificate_serves_without_a_restart(host: SecureHost) -> None:
    new = Authority()
    cert, key, ca = (path.read_bytes() for path in host.daemon.files)
    new.host().write(host.daemon.folder)
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{host.base}/nothing", ssl=trusting(new)) as reply,
    ):
        assert reply.status == 404
    with pytest.raises(ssl.SSLCertVerificationError):
        await asyncio.to_thread(shake_hands, host, trusting(host.daemon.authority))
    for path, content in zip(host.daemon.files, (cert, key, ca), strict=True):
        path.write_bytes(content)


def test_https_without_a_certificate_is_refused_at_the_start(tmp_path: Path) -> None:
    arguments = ("--http=https://127.0.0.1:0", f"--listen=unix:{tmp_path}/s")
    assert_refused(ended(*arguments, state_dir=tmp_path / "state"), "--tls-cert")


@pytest.mark.parametrize("address", ["0.0.0.0:0", "192.0.2.1:0"])
def test_console_open_to_others_is_refused_without_tls(tmp_path: Path, address: str) -> None:
    arguments = (f"--http={address}", f"--listen=unix:{tmp_path}/s")
    completed = ended(*arguments, state_dir=tmp_path / "state")
    assert_refused(completed, f"https://{address}", "--insecure")


@pytest.mark.parametrize("address", ["http://127.0.0.1:0", "grpcs://127.0.0.1:0", "ftp://a:1"])
def test_console_at_an_address_of_another_kind_is_refused(tmp_path: Path, address: str) -> None:
    arguments = (f"--http={address}", f"--listen=unix:{tmp_path}/s")
    assert_refused(ended(*arguments, state_dir=tmp_path / "state"), address)
