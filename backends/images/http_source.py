"""Images from web servers: redirections by the rules, and going on where a transfer broke off."""

import contextlib
import http.client
import io
import re
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from http import HTTPStatus

from virtrpc.v1.image_pb2 import ImageHttpSource

from backends.errors import ContractError, UnreachableError
from backends.images.address_rules import FIELD, Address, AddressRules
from backends.images.refusals import (
    source_denied,
    source_not_allowed,
    source_not_found,
    source_unreachable,
)

_REDIRECTIONS = 5
_CONNECT_S = 10.0
_SILENCE_S = 60.0
_POLL_S = 0.25
_READ_BYTES = 1 << 20
_PAUSES_S = (0.0, 0.2, 0.6, 1.2)  # before each of the tries in a row that bring nothing
_PARTIAL = HTTPStatus.PARTIAL_CONTENT
_VERSIONS = ("ETag", "Last-Modified")
_PART = re.compile(r"bytes (\d{1,18})-\d{1,18}/(\d{1,18}|\*)")
_MOVED = (301, 302, 303, 307, 308)
_GONE = (HTTPStatus.NOT_FOUND, HTTPStatus.GONE)
_TRY_LATER = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS)
_USER_AGENT = "virtrpcd"


class HttpSource:
    """A file of a web server that was asked for.

    `checkpoint` is called every quarter of a second and may raise, as may `wait`, which
    sleeps. Neither the query nor the token stands in any message.
    """

    def __init__(
        self,
        source: ImageHttpSource,
        rules: AddressRules,
        *,
        checkpoint: Callable[[], None],
        wait: Callable[[float], None],
    ) -> None:
        self.size_bytes = 0
        """Size of the file as the server tells it; 0: not known, or not begun yet."""
        self._source = source
        self._rules = rules
        self._checkpoint = checkpoint
        self._wait = wait
        self._response: http.client.HTTPResponse | None = None
        self._version: dict[str, str] = {}

    def check(self) -> None:
        """Raises InvalidArgumentError where the address itself is not allowed; asks nobody."""
        self._rules.check(self._address)

    def begin(self) -> None:
        """Asks the server for it; raises the errors of PullImage."""
        self._response = response = self._ask(0)
        self.size_bytes = response.length or 0
        self._version = {name: response.headers.get(name, "") for name in _VERSIONS}

    def chunks(self) -> Iterator[bytes]:
        """Its bytes, in order; a broken transfer is taken up again where it broke off."""
        offset, in_vain = 0, 0
        while True:
            try:
                for chunk in self._read(offset):
                    offset, in_vain = offset + len(chunk), 0
                    yield chunk
                if offset < self.size_bytes:  # a part is an answer too
                    raise source_unreachable("the server broke off")
                return
            except UnreachableError:
                if in_vain >= len(_PAUSES_S) or not offset:
                    raise
                self._wait(_PAUSES_S[in_vain])
                in_vain += 1

    def close(self) -> None:
        """Lets go of the server."""
        if self._response is not None:
            self._response.close()
            self._response = None

    @property
    def _address(self) -> Address:
        return Address.parse(self._source.url, query=self._source.query)

    def _read(self, offset: int) -> Iterator[bytes]:
        response = self._response or self._ask(offset)
        self._response = None
        with contextlib.closing(response):
            known = response.length is not None
            while True:
                with _telling_network_errors():
                    chunk = response.read1(_READ_BYTES)
                if not chunk:
                    break
                yield chunk
            if known and response.length:
                raise source_unreachable("the server broke off")

    def _ask(self, offset: int) -> http.client.HTTPResponse:
        """The server's answer, its body at the offset."""
        address, token = self._address, self._source.bearer_token
        for _ in range(_REDIRECTIONS + 1):
            response = self._get(address, token, offset)
            if response.status not in _MOVED:
                return self._checked(response, offset)
            with contextlib.closing(response):
                there = address.redirected(response.headers.get("Location", ""))
            if there.origin != address.origin:
                token = ""
            address = there
        raise source_unreachable(f"more than {_REDIRECTIONS} redirections")

    def _checked(self, response: http.client.HTTPResponse, offset: int) -> http.client.HTTPResponse:
        """The answer, when its body is what was asked for, of the same file as before."""
        try:
            _refuse_failure(response)
            start, size_bytes = _told_place(response)
            if start not in (0, offset) or (response.status == _PARTIAL and not offset):
                raise source_unreachable("the server sends another part than was asked for")
            if self._is_other(response, size_bytes):
                raise source_unreachable("the file on the server has changed meanwhile")
            self._skip(response, offset - start)
        except ContractError:
            response.close()
            raise
        return response

    def _is_other(self, response: http.client.HTTPResponse, size_bytes: int | None) -> bool:
        """Whether the answer is of another file than the first one was."""
        if self.size_bytes and size_bytes not in (None, self.size_bytes):
            return True
        return any(
            before and response.headers.get(name, before) != before
            for name, before in self._version.items()
        )

    def _skip(self, response: http.client.HTTPResponse, count: int) -> None:
        """Passes over what is known, where the server sends all of it again."""
        while count:
            with _telling_network_errors():
                skipped = len(response.read1(min(count, _READ_BYTES)))
            if not skipped:
                raise source_unreachable("the server broke off")
            count -= skipped

    def _get(self, address: Address, token: str, offset: int) -> http.client.HTTPResponse:
        headers = {"Accept-Encoding": "identity", "User-Agent": _USER_AGENT, "Connection": "close"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        if offset:
            headers["Range"] = f"bytes={offset}-"
            validator = self._version.get("ETag", "")
            if validator and not validator.startswith("W/"):
                headers["If-Range"] = validator
        connection_class = (
            http.client.HTTPSConnection if address.scheme == "https" else http.client.HTTPConnection
        )
        connection = connection_class(address.host, address.port)
        reader = self._connected(address)
        connection.sock = _RequestEnd(reader)
        try:
            with _telling_network_errors():
                connection.request("GET", address.target, headers=headers)
                return connection.getresponse()
        except ContractError:
            reader.close()
            raise

    def _connected(self, address: Address) -> "_PatientReader":
        """A connection to an address that was checked, and to no other."""
        failure: OSError | None = None
        for ip_address in self._rules.resolve(address):
            self._checkpoint()
            try:
                plain = socket.create_connection((ip_address, address.port), _CONNECT_S)
                return _PatientReader(_secured(plain, address), self._checkpoint)
            except OSError as error:
                failure = error
        raise source_unreachable(f"the server does not answer: {_reason(failure)}") from failure


class _PatientReader(io.RawIOBase):
    """Reads from a server: silent for a minute at most, and never past a cancel."""

    def __init__(self, plain: socket.socket, checkpoint: Callable[[], None]) -> None:
        super().__init__()
        self._socket = plain
        self._checkpoint = checkpoint

    def sendall(self, data: bytes) -> None:
        """Sends a request, which is small."""
        self._socket.settimeout(_CONNECT_S)
        self._socket.sendall(data)

    def readable(self) -> bool:
        """It is for reading."""
        return True

    def readinto(self, buffer: "memoryview[int]") -> int:  # type: ignore[override]
        """Waits for some bytes; 0 at the end."""
        self._socket.settimeout(_POLL_S)
        deadline = time.monotonic() + _SILENCE_S
        while True:
            self._checkpoint()
            try:
                return self._socket.recv_into(buffer)
            except TimeoutError:
                if time.monotonic() > deadline:
                    raise

    def close(self) -> None:
        """Ends the connection."""
        if not self.closed:
            self._socket.close()
        super().close()


class _RequestEnd:
    """What http.client takes for a socket.

    It closes that as soon as it has the answer's header; the connection lives for as long
    as the answer is read.
    """

    def __init__(self, reader: _PatientReader) -> None:
        self._reader = reader
        self.sendall = reader.sendall

    def makefile(self, _mode: str) -> io.BufferedReader:
        """What the answer is read from; who closes it ends the connection."""
        return io.BufferedReader(self._reader, _READ_BYTES)

    def close(self) -> None:
        """The answer's reader ends the connection."""


def _secured(plain: socket.socket, address: Address) -> socket.socket:
    if address.scheme != "https":
        return plain
    try:
        return ssl.create_default_context().wrap_socket(plain, server_hostname=address.host)
    except OSError:
        plain.close()
        raise


def _refuse_failure(response: http.client.HTTPResponse) -> None:
    status = response.status
    if status in _GONE:
        raise source_not_found(f"the server says {status}", field=FIELD)
    if status in _TRY_LATER or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        raise source_unreachable(f"the server says {status}")
    if status >= HTTPStatus.BAD_REQUEST:
        raise source_denied(f"the server says {status}", field=FIELD)
    if status not in (HTTPStatus.OK, _PARTIAL):
        raise source_unreachable(f"the server says {status}")
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise source_not_allowed("the server sends the file encoded", field=FIELD)


def _told_place(response: http.client.HTTPResponse) -> tuple[int, int | None]:
    """Where the body begins in the file, -1 where nobody understands it, and the file's size."""
    if response.status != _PARTIAL:
        return 0, response.length
    part = _PART.fullmatch(response.headers.get("Content-Range", ""))
    if part is None:
        return -1, None
    return int(part[1]), None if part[2] == "*" else int(part[2])


@contextlib.contextmanager
def _telling_network_errors() -> Iterator[None]:
    """Errors of the network and of the protocol become errors of the contract."""
    try:
        yield
    except TimeoutError as error:
        raise source_unreachable(f"the server sent nothing for {_SILENCE_S:.0f} s") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise source_unreachable(f"the server broke off: {_reason(error)}") from error


def _reason(error: BaseException | None) -> str:
    """Of a failure what has no secret in it."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return type(error).__name__
