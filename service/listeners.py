"""Addresses that the daemon serves on, taken exclusively."""

import errno
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import grpc
import structlog
from virtrpc.address import Address

from service.state_dir import Lock, StateInUseError
from service.tls import Tls

log = structlog.get_logger()


class ListenError(Exception):
    """An address cannot be served on; the message says why."""


class Listeners:
    """Binds a server to addresses; keeps the locks that guard Unix sockets."""

    def __init__(self, server: grpc.aio.Server, *, insecure: bool, tls: Tls | None) -> None:
        """`insecure`: addresses open to other hosts are served without TLS too."""
        self._server = server
        self._tls = tls
        self._insecure = insecure
        self._locks: list[Lock] = []

    def bind(self, addresses: Sequence[str]) -> list[str]:
        """Binds all; gives them as bound, with the ports that were chosen.

        Raises ListenError where one is taken, or open to others without TLS or --insecure.
        """
        return [self._bind(address) for address in map(_parsed, addresses)]

    def release(self) -> None:
        """Lets another daemon have the sockets."""
        for lock in self._locks:
            lock.release()

    def _bind(self, address: Address) -> str:
        if address.socket_path:
            return self._bind_unix(address)
        return self._bind_tls(address) if address.secure else self._bind_tcp(address)

    def _bind_unix(self, address: Address) -> str:
        path = Path(address.socket_path)
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        try:
            # gRPC takes a socket over from whoever has it: the lock says that nobody does.
            self._locks.append(Lock(path.with_name(path.name + ".lock")))
        except StateInUseError as error:
            raise ListenError(f"{address} is in use: {error}") from None
        with _umask(0o177):
            self._add(address)
        return str(address)

    def _bind_tcp(self, address: Address) -> str:
        if not address.is_local:
            self._require_insecure(address)
        _require_free(address)
        return _at_port(address, self._add(address))

    def _bind_tls(self, address: Address) -> str:
        if self._tls is None:
            raise ListenError(f"{address} needs --tls-cert, --tls-key and --tls-ca")
        _require_free(address)
        return f"grpcs://{_at_port(address, self._add(address, self._tls.server_credentials()))}"

    def _require_insecure(self, address: Address) -> None:
        if not self._insecure:
            raise ListenError(
                f"{address} is open to other hosts: serve grpcs://{address.authority} with"
                " certificates, loopback or a Unix socket, or say --insecure"
            )
        log.warning("INSECURE: whoever reaches this address is the administrator, unencrypted",
                    address=str(address))  # fmt: skip

    def _add(self, address: Address, credentials: grpc.ServerCredentials | None = None) -> int:
        try:
            if credentials is not None:
                return self._server.add_secure_port(address.target, credentials)
            return self._server.add_insecure_port(address.target)
        except RuntimeError as error:
            raise ListenError(f"cannot serve on {address}: is it in use?") from error


@contextmanager
def _umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def _parsed(text: str) -> Address:
    try:
        return Address.parse(text)
    except ValueError as error:
        raise ListenError(str(error)) from None


def _at_port(address: Address, port: int) -> str:
    """The address with the port that was chosen for it."""
    return f"{address.authority.rpartition(':')[0]}:{port}"


def _require_free(address: Address) -> None:
    """Raises ListenError where gRPC would fail too, but say why only in a log of its own."""
    failures = []
    try:
        places = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise ListenError(f"cannot serve on {address}: {error.strerror}") from None
    for family, kind, protocol, _, place in places:
        try:
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(place)
        except OSError as error:
            failures.append(error)
    taken = any(error.errno == errno.EADDRINUSE for error in failures)
    if taken or len(failures) == len(places):
        raise ListenError(f"cannot serve on {address}: {failures[0].strerror}")
