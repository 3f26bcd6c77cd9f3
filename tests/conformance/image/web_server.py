"""A loopback web server that behaves as it is told: whole, in part, broken, redirecting, silent."""

import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = Callable[["Handler"], None]


@dataclass
class Asked:
    """A request as it came."""

    path: str
    headers: dict[str, str]


@dataclass
class WebServer:
    """Answers by path; remembers what it was asked."""

    answers: dict[str, Answer] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    tls: ssl.SSLContext | None = None

    def __enter__(self) -> "WebServer":
        self.released = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        if self.tls is not None:
            self._server.socket = self.tls.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self._server.web = self  # type: ignore[attr-defined]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.released.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        scheme = "http" if self.tls is None else "https"
        return f"{scheme}://127.0.0.1:{self.port}"

    def serve(self, path: str, answer: Answer | bytes) -> str:
        """Answers a path so from now on; gives its address."""
        self.answers[path] = whole(answer) if isinstance(answer, bytes) else answer
        return self.url + path


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        web: WebServer = self.server.web  # type: ignore[attr-defined]
        web.asked.append(Asked(self.path, dict(self.headers.items())))
        self.close_connection = True
        web.answers.get(self.path.partition("?")[0], status(404))(self)

    def begin(self, code: int, **headers: object) -> None:
        self.send_response(code)
        self.send_header("Connection", "close")
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass

    @property
    def wanted_from(self) -> int:
        return int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))


def status(code: int, **headers: object) -> Answer:
    return lambda handler: handler.begin(code, Content_Length=0, **headers)


def whole(data: bytes) -> Answer:
    def answer(handler: Handler) -> None:
        handler.begin(200, Content_Length=len(data))
        handler.wfile.write(data)

    return answer


def redirect(location: str, code: int = 302) -> Answer:
    return status(code, Location=location)


def breaking(data: bytes, *, every: int, ranges: bool = True) -> Answer:
    """Breaks off after so many bytes each time; goes on by Range, or sends all again."""
    progress = {"sent": 0}

    def answer(handler: Handler) -> None:
        start = handler.wanted_from if ranges else 0
        end = min(progress["sent"] + every, len(data))
        progress["sent"] = end
        if start:
            content_range = f"bytes {start}-{len(data) - 1}/{len(data)}"
            handler.begin(206, Content_Length=len(data) - start, Content_Range=content_range)
        else:
            handler.begin(200, Content_Length=len(data), ETag='"one"')
        handler.wfile.write(data[start:end])
        handler.wfile.flush()

    return answer


def silent(data: bytes, web: WebServer) -> Answer:
    """Sends a beginning, then nothing until the server ends."""

    def answer(handler: Handler) -> None:
        handler.begin(200, Content_Length=len(data) + 1)
        handler.wfile.write(data)
        handler.wfile.flush()
        web.released.wait(60)

    return answer
