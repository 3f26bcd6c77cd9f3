"""The web console's HTTP and WebSocket: who is let in, what is told, and what is kept quiet."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest
from virtrpc.v1 import console_pb2 as pb
from virtrpc.v1 import instance_pb2

from tests.daemon import DaemonProcess
from tests.instances import TIMEOUT_S
from tests.web.conftest import WebHost, web_host

VNC, SERIAL = pb.CONSOLE_TYPE_VNC, pb.CONSOLE_TYPE_SERIAL
REFUSED, ENDED = 4403, 4410
BYTES = (aiohttp.WSMsgType.BINARY,)
Socket = aiohttp.ClientWebSocketResponse


def nameless(_: str | bytes) -> str:
    """Of parameters that are no names for tests: pytest numbers them."""
    return ""


def base(access: pb.GetConsoleResponse) -> str:
    return f"http://{access.host}:{urlsplit(access.web_url).port}"


@asynccontextmanager
async def connected(host: WebHost, **headers: str) -> AsyncIterator[Socket]:
    address = f"{base(host.access(SERIAL))}/console/socket"
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(address, headers=headers) as socket,
    ):
        yield socket


async def told(socket: Socket) -> Any:
    """The next message that is no bytes."""
    while True:
        message = await socket.receive(timeout=TIMEOUT_S)
        if message.type != aiohttp.WSMsgType.BINARY:
            return json.loads(message.data)


async def shown(socket: Socket, text: bytes) -> bytes:
    """Bytes until a text is in them."""
    seen = b""
    while text not in seen:
        message = await socket.receive(timeout=TIMEOUT_S)
        assert message.type == aiohttp.WSMsgType.BINARY, message
        seen += message.data
    return seen


async def opened(socket: Socket, page: str, token: str, **asked: Any) -> Any:
    await socket.send_json({"page": page, "token": token, **asked})
    return (await told(socket))["opened"]


async def refused(socket: Socket, hello: Any) -> None:
    """Sends a first message, and is refused."""
    await socket.send_str(hello if isinstance(hello, str) else json.dumps(hello))
    assert (await told(socket))["refused"] == "CONSOLE_TOKEN_REFUSED"
    assert (await socket.receive(timeout=TIMEOUT_S)).data == REFUSED


def stop(host: WebHost, *, on_again: bool) -> None:
    off = instance_pb2.PowerOffInstanceRequest(instance_id=host.instance_id)
    host.connection.instances.PowerOffInstance(off, timeout=TIMEOUT_S)
    if on_again:
        power_on = instance_pb2.PowerOnInstanceRequest(instance_id=host.instance_id)
        host.connection.instances.PowerOnInstance(power_on, timeout=TIMEOUT_S)


def test_access_says_where_browsers_and_programs_connect(fake_host: WebHost) -> None:
    screen, serial = fake_host.access(VNC), fake_host.access(SERIAL)
    assert screen.web_url == f"{base(screen)}/console/vnc#{screen.token}"
    assert serial.web_url == f"{base(serial)}/console/serial#{serial.token}"
    assert (serial.host, serial.path) == ("127.0.0.1", "/console/socket")
    assert serial.port == urlsplit(serial.web_url).port
    web = fake_host.access(pb.CONSOLE_TYPE_WEB)
    assert web.web_url.startswith(f"{base(web)}/console/serial#")


async def test_page_is_strict_about_what_it_loads(fake_host: WebHost) -> None:
    access = fake_host.access(VNC)
    async with aiohttp.ClientSession() as session, session.get(access.web_url) as page:
        text = await page.text()
        policy = page.headers["Content-Security-Policy"]
    assert page.status == 200
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert page.headers["Referrer-Policy"] == "no-referrer"
    assert page.headers["Cache-Control"] == "no-store"
    nonce = policy.partition("'nonce-")[2].partition("'")[0]
    assert f'nonce="{nonce}"' in text
    assert f'<meta name="origin" content="{base(access)}">' in text
    assert "http://" not in text.replace(base(access), "")
    async with aiohttp.ClientSession() as session, session.get(access.web_url) as again:
        assert nonce not in again.headers["Content-Security-Policy"]


@pytest.mark.parametrize(
    "path", ["/", "/console/", "/console/assets/", "/console/assets/../console.html", "/etc/passwd"]
)
async def test_nothing_else_is_served(fake_host: WebHost, path: str) -> None:
    address = base(fake_host.access(VNC)) + path
    async with aiohttp.ClientSession() as session:
        for encoded in (address, address.replace("..", "%2e%2e")):
            async with session.get(encoded) as response:
                assert response.status in (403, 404)
                assert response.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("origin", ["http://elsewhere.example", "null", "http://127.0.0.1:1"])
async def test_pages_from_elsewhere_do_not_connect(fake_host: WebHost, origin: str) -> None:
    with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
        async with connected(fake_host, Origin=origin):
            pass
    assert caught.value.status == 403


async def test_our_own_page_and_programs_connect(fake_host: WebHost) -> None:
    origin = base(fake_host.access(SERIAL))
    for headers in ({"Origin": origin}, {}):
        async with connected(fake_host, **headers) as socket:
            await opened(socket, "serial", fake_host.access(SERIAL).token)


@pytest.mark.parametrize(
    "hello",
    [
        *("", "x", "[]", "{}", "null", "[" * 60_000, '{"a":' * 9_000),
        '{"token": 1}',
        '{"page": "serial", "token": "a.b"}',
        '{"page": "serial", "token": "\\ud800.\\ud800"}',
        '{"page": "serial", "token": "TOKEN\\ud800"}',
        '{"page": "serial", "token": "TOKEN", "offset": -1}',
        '{"page": "serial", "token": "TOKEN", "offset": 1e999}',
        '{"page": "serial", "token": "TOKEN", "offset": 99999999999999999999}',
        '{"page": "serial", "token": "TOKEN", "log_id": ["\\ud800"]}',
        '{"page": "serial", "token": "TOKEN", "log_id": "\\ud800"}',
    ],
    ids=nameless,
)
async def test_nonsense_is_refused(fake_host: WebHost, hello: str) -> None:
    async with connected(fake_host) as socket:
        await refused(socket, hello.replace("TOKEN", fake_host.access(SERIAL).token))
    assert "Traceback" not in fake_host.daemon.log()


@pytest.mark.parametrize(
    "size", ["[-1, 1]", "[0, 0]", "[1e999, 1]", "[1, 4000000000]", '["a", 1]', "[" * 60_000, "{}"],
    ids=nameless,
)  # fmt: skip
async def test_nonsense_of_a_window_is_passed_over(fake_host: WebHost, size: str) -> None:
    async with connected(fake_host) as socket:
        await opened(socket, "serial", fake_host.access(SERIAL).token)
        await socket.send_str(f'{{"resize": {size}}}')
        await socket.send_bytes(b"echo still-there\r")
        await shown(socket, b"\nstill-there\r\n")
    assert "Traceback" not in fake_host.daemon.log()


async def test_page_whose_place_in_the_log_is_gone_begins_at_its_end(fake_host: WebHost) -> None:
    """As where virtlogd has rotated the log."""
    for place in ({"offset": 1 << 40}, {"offset": 0, "log_id": fake_host.instance_id}):
        async with connected(fake_host) as socket:
            facts = await opened(socket, "serial", fake_host.access(SERIAL).token, **place)
            assert facts["offset"] <= facts["end"] < 1 << 40
            assert facts["log_id"] != fake_host.instance_id


@pytest.mark.parametrize(
    "request_", [
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET /secret HTTP/1.1\nHost: a\n\n",
        b"GET /" + b"secret" * 2_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nsecret",
        b"GET / HTTP/1.1\r\nHost: a\r\nsecret : b\r\n\r\n",
        b"\x16\x03\x01secret\r\n\r\n",
    ],
    ids=nameless,
)  # fmt: skip
async def test_what_is_no_request_is_refused_quietly(fake_host: WebHost, request_: bytes) -> None:
    """Nothing of it comes back or into the log, and nothing after it is taken for a request."""
    address = urlsplit(base(fake_host.access(SERIAL)))
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    writer.write(request_ + b"GET /console/vnc HTTP/1.1\r\nHost: a\r\n\r\n")
    answer = await asyncio.wait_for(reader.read(), TIMEOUT_S)
    writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.0 400 ")
    assert b"\r\nServer: virtrpcd\r\n" in head
    assert b"\r\nX-Content-Type-Options: nosniff\r\n" in head
    assert body == b"Bad Request"
    assert "Traceback" not in fake_host.daemon.log()
    assert "secret" not in fake_host.daemon.log()


@pytest.mark.parametrize("method", ["OPTIONS", "POST", "PUT", "DELETE", "TRACE"])
async def test_only_reads_are_answered(fake_host: WebHost, method: str) -> None:
    async with aiohttp.ClientSession() as session:
        address = f"{base(fake_host.access(SERIAL))}/console/serial"
        async with session.request(method, address) as response:
            assert response.status == 405
        async with session.head(address) as response:
            assert response.status == 200
            assert "Content-Security-Policy" in response.headers


async def test_token_opens_once_and_only_its_own_page(fake_host: WebHost) -> None:
    token = fake_host.access(SERIAL).token
    async with connected(fake_host) as socket:
        facts = await opened(socket, "serial", token)
        assert (facts["instance_id"], facts["name"]) == (fake_host.instance_id, "web-guest")
        async with connected(fake_host) as another:
            await refused(another, {"page": "serial", "token": token})
    async with connected(fake_host) as socket:
        await refused(socket, {"page": "serial", "token": fake_host.access(VNC).token})


async def test_serial_port_is_typed_at_and_resumed(fake_host: WebHost) -> None:
    async with connected(fake_host) as socket:
        facts = await opened(socket, "serial", fake_host.access(SERIAL).token)
        assert facts["writer"]
        await socket.send_json({"resize": [100, 30]})
        await socket.send_json({"resize": "nonsense"})
        await socket.send_bytes(b"echo by-web\r")
        seen = await shown(socket, b"\nby-web\r\n")
    place = {"offset": facts["offset"] + len(seen), "log_id": facts["log_id"]}
    async with connected(fake_host) as socket:
        again = await opened(socket, "serial", facts["resume"], **place)
        assert again["offset"] == place["offset"]
        await socket.send_bytes(b"echo resumed\r")
        assert await shown(socket, b"\nresumed\r\n") == b"echo resumed\r\nresumed\r\n"


async def test_second_page_watches_until_it_takes_over(fake_host: WebHost) -> None:
    async with connected(fake_host) as first, connected(fake_host) as second:
        await opened(first, "serial", fake_host.access(SERIAL).token)
        facts = await opened(second, "serial", fake_host.access(SERIAL).token)
        assert not facts["writer"]
        assert facts["writer_identity"] == "local:unix by web"
        async with connected(fake_host) as third:
            token = facts["resume"]
            assert (await opened(third, "serial", token, takeover=True))["writer"]
            assert (await told(first))["writer_lost"] == "local:unix by web"


async def test_watcher_stays_one_when_its_connection_breaks(fake_host: WebHost) -> None:
    async with connected(fake_host) as first, connected(fake_host) as second:
        await opened(first, "serial", fake_host.access(SERIAL).token)
        facts = await opened(second, "serial", fake_host.access(SERIAL).token)
        await first.close()
        await second.close()
    async with connected(fake_host) as again:
        resumed = await opened(again, "serial", facts["resume"], watch=True)
        assert (resumed["writer"], resumed["writer_identity"]) == (False, "")


async def test_page_has_its_place_again_before_the_daemon_knows_that_it_broke(
    fake_host: WebHost,
) -> None:
    async with connected(fake_host) as broken, connected(fake_host) as again:
        facts = await opened(broken, "serial", fake_host.access(SERIAL).token)
        assert (await opened(again, "serial", facts["resume"]))["writer"]
        assert (await told(broken))["closed"] == "DETACHED"


async def test_slow_page_is_told_what_it_missed(fake_host: WebHost) -> None:
    """It holds up nobody, nothing is kept for it, and it has the end in the end."""
    instance = fake_host.daemon.state_dir / "fake" / fake_host.instance_id
    (log,) = instance.glob("console.*.log")
    async with connected(fake_host) as socket:
        await opened(socket, "serial", fake_host.access(SERIAL).token)
        with log.open("ab", buffering=0) as console:
            for _ in range(64):
                console.write(b"x" * (1 << 20))
            # One that is read meanwhile: the bounds of the log are kept once a second.
            while log.stat().st_blocks * 512 > 4 << 20:
                fake_host.running()
            console.write(b"the-end")
        seen = expired = 0
        last = b""
        while not last.endswith(b"the-end"):
            message = await socket.receive(timeout=TIMEOUT_S)
            if message.type == aiohttp.WSMsgType.BINARY:
                seen += len(message.data)
                last = (last + message.data)[-7:]
            else:
                expired += json.loads(message.data)["expired"]
    assert expired > 32 << 20
    assert seen < 32 << 20


async def test_connections_are_bounded(fake_host: WebHost) -> None:
    """Also those that ask for nothing; connections in the bound are served again afterwards."""
    address = urlsplit(base(fake_host.access(SERIAL)))
    many = [await asyncio.open_connection(address.hostname, address.port) for _ in range(800)]
    last, _ = many[-1]
    with contextlib.suppress(ConnectionResetError):
        assert await asyncio.wait_for(last.read(), 5) == b""
    for _, writer in many:
        writer.close()
    async with connected(fake_host) as socket:
        await opened(socket, "serial", fake_host.access(SERIAL).token)


async def test_screen_s_bytes_come_as_they_are(fake_host: WebHost) -> None:
    async with connected(fake_host) as socket:
        await opened(socket, "vnc", fake_host.access(VNC).token)
        await shown(socket, b"RFB 003.008\n")
        await socket.send_bytes(bytes(range(256)))
        assert await shown(socket, bytes(range(256)))


@pytest.mark.parametrize("page", ["vnc", "serial"])
async def test_stop_ends_connections_and_voids_every_token(fake_host: WebHost, page: str) -> None:
    kind = VNC if page == "vnc" else SERIAL
    unused = fake_host.access(kind).token
    async with connected(fake_host) as socket:
        facts = await opened(socket, page, fake_host.access(kind).token)
        await asyncio.to_thread(stop, fake_host, on_again=True)
        last = await told(socket)
        assert last == {"closed": "INSTANCE_STOPPED", "message": "the instance has stopped"}
        assert (await socket.receive(timeout=TIMEOUT_S)).data == ENDED
    for token in (unused, facts["resume"]):
        async with connected(fake_host) as socket:
            await refused(socket, {"page": page, "token": token})


@pytest.mark.parametrize("page", ["vnc", "serial"])
async def test_stopping_daemon_says_that_it_comes_back(
    page: str,
    short_folder: Callable[[], Path],
    guest_images: Callable[[DaemonProcess], None],
) -> None:
    hosts = web_host("fake", short_folder(), guest_images)
    host = next(hosts)
    async with connected(host) as socket:
        await opened(socket, page, host.access(VNC if page == "vnc" else SERIAL).token)
        assert host.daemon.process is not None
        host.daemon.process.terminate()
        while (message := await socket.receive(timeout=TIMEOUT_S)).type in BYTES:
            pass
        assert message.data == aiohttp.WSCloseCode.SERVICE_RESTART
    assert await asyncio.to_thread(host.daemon.wait) == 0
    host.daemon.start()
    hosts.close()


async def test_no_token_is_logged(fake_host: WebHost) -> None:
    access = fake_host.access(SERIAL)
    async with connected(fake_host) as socket:
        facts = await opened(socket, "serial", access.token)
    log = fake_host.daemon.log()
    assert access.token not in log
    assert facts["resume"] not in log
