"""Serves the console's pages on the daemon's own event loop.

    /console/vnc, /console/serial   the page; its token is in the fragment of its address
    /console/assets/…               scripts and styles, from the folder of the web client
    /console/socket                 see service.web.sockets

The pages load nothing from elsewhere, and nothing of what is sent here is logged.
"""

import asyncio
import secrets
import socket
from collections.abc import Mapping
from html import escape
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import structlog
from aiohttp import web
from virtrpc.address import Address

from service.consoles.web_address import PAGES, SOCKET_PATH, WebAddress
from service.listeners import ListenError
from service.tls import Tls
from service.web.sockets import ConsoleSockets

_PAGE = "console.html"
_NONCE, _ORIGIN = "{{nonce}}", "{{origin}}"
_CLOSE_S = 2.0
# Who connects and asks for nothing, or not to the end, is hung up on.
_IDLE_S = 15.0
_HANDSHAKE_S = 10.0
_MOST_CONNECTIONS = 640
_EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104 - no addresses for browsers
# Both clients place what they draw by element.style, which needs no exception; the
# terminal also adds style elements, which the page marks with the nonce.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'nonce-{nonce}'; "
    "img-src 'self' data:; font-src 'self'; connect-src 'self'; manifest-src 'none'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Server": "virtrpcd",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
log = structlog.get_logger()


class _Connection(web.RequestHandler):
    """One client. What is no HTTP ends it, quietly: strangers fill no log, and get no echo."""

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - has a piece of the request
    ) -> web.StreamResponse:
        """The answer to what was not understood, or has failed."""
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            log.error("defect in the web console", exc_info=exc)
        if request.writer.output_size > 0:
            raise ConnectionError("half an answer is sent")
        response = web.Response(status=status, text=HTTPStatus(status).phrase, headers=_HEADERS)
        response.force_close()
        return response


class _TurnedAway(asyncio.Protocol):
    """A connection too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ends it at once."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - of a TCP server
        transport.abort()


class WebConsole:
    """An HTTP server. Event loop only."""

    def __init__(
        self,
        *,
        listen: str,
        public_url: str,
        folder: Path,
        insecure: bool,
        tls: Tls | None,
        address: WebAddress,
        sockets: ConsoleSockets,
    ) -> None:
        """`public_url`: by which browsers reach it; empty: the address listened on, or this
        host's name where that is every address.

        `folder`: the built web client. `address` is filled in at the start.
        """
        self._listen = listen
        self._public_url = public_url.rstrip("/")
        self._folder = folder
        self._insecure = insecure
        self._tls = tls
        self._address = address
        self._sockets = sockets
        self._runner: web.AppRunner | None = None
        self._server: asyncio.Server | None = None

    async def start(self) -> str:
        """Serves; gives the address for browsers. Raises ListenError."""
        place = self._parsed()
        self._runner = web.AppRunner(self._app(), shutdown_timeout=_CLOSE_S)
        await self._runner.setup()
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(
                self._connection, place.host, place.port, **self._by_tls(place)
            )
        except OSError as error:
            raise ListenError(f"cannot serve on {self._listen}: {error.strerror}") from error
        port = self._server.sockets[0].getsockname()[1]
        self._address.base = self._public_url or _base(place, port)
        return self._address.base

    async def stop(self) -> None:
        """Ends connections with "service restart" and serves no more."""
        if self._server is not None:
            self._server.close()
        self._sockets.close()
        if self._runner is not None:
            await self._runner.cleanup()

    def _connection(self) -> asyncio.Protocol:
        """What serves the next connection."""
        assert self._runner is not None  # noqa: S101 - made before anybody connects
        server = self._runner.server
        assert server is not None  # noqa: S101 - set up before anybody connects
        if len(server.connections) >= _MOST_CONNECTIONS:
            return _TurnedAway()
        return _Connection(
            server,
            loop=asyncio.get_running_loop(),
            access_log=None,  # type: ignore[arg-type]  # as AppRunner passes it: none
            keepalive_timeout=_IDLE_S,
        )

    def _by_tls(self, place: Address) -> Mapping[str, Any]:
        if not place.secure:
            return {}
        if self._tls is None:
            raise ListenError(f"{self._listen} needs --tls-cert, --tls-key and --tls-ca")
        return {"ssl": self._tls.https_context(), "ssl_handshake_timeout": _HANDSHAKE_S}

    def _parsed(self) -> Address:
        place = _place(self._listen)
        if not place.secure and not place.is_local:
            self._require_insecure()
        if self._public_url and urlsplit(self._public_url).scheme not in ("http", "https"):
            raise ListenError(f"{self._public_url} is no address for browsers")
        return place

    def _require_insecure(self) -> None:
        if not self._insecure:
            raise ListenError(
                f"{self._listen} is open to other hosts: serve https://{self._listen}, put a proxy"
                " with TLS before loopback, or say --insecure"
            )
        log.warning("INSECURE: the web console is served unencrypted", address=self._listen)

    def _app(self) -> web.Application:
        app = web.Application()
        app.on_response_prepare.append(_with_headers)
        app.router.add_get(SOCKET_PATH, self._sockets.handle)
        self._address.has_pages = (self._folder / _PAGE).is_file()
        if self._address.has_pages:
            for page in set(PAGES.values()):
                app.router.add_get(f"/console/{page}", self._page)
            app.router.add_static("/console/assets", self._folder / "assets")
        else:
            log.warning("the web console has no pages: it was not built", folder=str(self._folder))
        return app

    async def _page(self, _request: web.Request) -> web.Response:
        """The same page for all consoles; its script looks at its address."""
        nonce = secrets.token_urlsafe(16)
        text = (self._folder / _PAGE).read_text(encoding="utf-8").replace(_NONCE, nonce)
        text = text.replace(_ORIGIN, escape(self._address.origin))
        response = web.Response(text=text, content_type="text/html")
        response.headers["Content-Security-Policy"] = _POLICY.format(nonce=nonce)
        response.headers["Cache-Control"] = "no-store"
        return response


def _base(place: Address, port: int) -> str:
    """By which address browsers reach it, as far as is known here."""
    name = socket.gethostname() if place.host in _EVERYWHERE else place.host
    host = f"[{name}]" if ":" in name else name
    return f"{'https' if place.secure else 'http'}://{host}:{port}"


def _place(text: str) -> Address:
    """Of "host:port" or "https://host:port"; raises ListenError."""
    scheme, mark, rest = text.rpartition("://")
    try:
        place = Address.parse(f"grpcs://{rest}" if scheme == "https" else text)
    except ValueError as error:
        raise ListenError(str(error)) from None
    if place.socket_path or (mark and scheme != "https"):
        raise ListenError(f"{text}: the web console is served on host:port or https://host:port")
    return place


async def _with_headers(_request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(_HEADERS)
    response.headers.setdefault("Cache-Control", "no-cache")
