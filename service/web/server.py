"""Serves the console's pages on the daemon's own event loop.

    /console/vnc, /console/serial   the page; its token is in the fragment of its address
    /console/assets/…               scripts and styles, from the folder of the web client
    /console/socket                 see service.web.sockets

The pages load nothing from elsewhere, and nothing of what is sent here is logged.
"""

import asyncio
import secrets
from pathlib import Path
from urllib.parse import urlsplit

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler
from virtrpc.address import Address

from service.consoles.web_address import PAGES, SOCKET_PATH, WebAddress
from service.listeners import ListenError
from service.web.sockets import ConsoleSockets

_PAGE = "console.html"
_NONCE = "{{nonce}}"
_CLOSE_S = 2.0
# Who connects and asks for nothing, or not to the end, is hung up on.
_IDLE_S = 15.0
_MOST_CONNECTIONS = 640
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
        address: WebAddress,
        sockets: ConsoleSockets,
    ) -> None:
        """`public_url`: by which browsers reach it; empty: the address listened on.

        `folder`: the built web client. `address` is filled in at the start.
        """
        self._listen = listen
        self._public_url = public_url.rstrip("/")
        self._folder = folder
        self._insecure = insecure
        self._address = address
        self._sockets = sockets
        self._runner: web.AppRunner | None = None
        self._server: asyncio.Server | None = None

    async def start(self) -> str:
        """Serves; gives the address for browsers. Raises ListenError."""
        place = self._parsed()
        self._runner = web.AppRunner(
            self._app(),
            access_log=None,
            shutdown_timeout=_CLOSE_S,
            keepalive_timeout=_IDLE_S,
        )
        await self._runner.setup()
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(self._connection, place.host, place.port)
        except OSError as error:
            raise ListenError(f"cannot serve on {self._listen}: {error.strerror}") from error
        port = self._server.sockets[0].getsockname()[1]
        host = f"[{place.host}]" if ":" in place.host else place.host
        self._address.base = self._public_url or f"http://{host}:{port}"
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
        return _TurnedAway() if len(server.connections) >= _MOST_CONNECTIONS else server()

    def _parsed(self) -> Address:
        try:
            place = Address.parse(self._listen)
        except ValueError as error:
            raise ListenError(str(error)) from None
        if place.socket_path or place.secure:
            raise ListenError(f"{self._listen}: the web console is served on host:port")
        if not self._insecure and not place.is_local:
            raise ListenError(
                f"{self._listen} is open to other hosts: put a proxy with TLS before loopback,"
                " or say --insecure"
            )
        if self._public_url and urlsplit(self._public_url).scheme not in ("http", "https"):
            raise ListenError(f"{self._public_url} is no address for browsers")
        return place

    def _app(self) -> web.Application:
        app = web.Application(middlewares=[_with_headers])
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
        response = web.Response(text=text, content_type="text/html")
        response.headers["Content-Security-Policy"] = _POLICY.format(nonce=nonce)
        response.headers["Cache-Control"] = "no-store"
        return response


@web.middleware
async def _with_headers(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        response = await handler(request)
    except web.HTTPException as error:
        error.headers.update(_HEADERS)
        raise
    if not response.prepared:
        response.headers.update(_HEADERS)
        response.headers.setdefault("Cache-Control", "no-cache")
    return response
