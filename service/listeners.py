"""Addresses that the daemon serves on, taken exclusively."""

import errno
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import grpc
from virtrpc.address import Address

from service.state_dir import Lock, StateInUseError


class ListenError(Exception):
    """An address cannot be served on; the message says why."""


class Listeners:
    """Binds a server to addresses; keeps the locks that guard Unix sockets."""

    def __init__(self, server: grpc.aio.Server, *, insecure: bool) -> None:
        self._server = server
        self._insecure = insecure
        self._locks: list[Lock] = []

    def bind(self, addresses: Sequence[str]) -> list[str]:
        """Binds all; gives them as bound, with the ports that were chosen.

        Raises ListenError where one is taken, or open to others without --insecure.
        """
        return [
            self._bind_unix(address) if address.socket_path else self._bind_tcp(address)
            for address in map(_parsed, addresses)
        ]

    def release(self) -> None:
        """Lets another daemon have the sockets."""
        for lock in self._locks:
            lock.release()

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
        if not self._insecure and not address.is_local:
            raise ListenError(
                f"{address} is open to other hosts: serve on loopback or a Unix socket,"
                " or say --insecure"
            )
        _require_free(address)
        return f"{address.authority.rpartition(':')[0]}:{self._add(address)}"

    def _add(self, address: Address) -> int:
        try:
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
        address = Address.parse(text)
    except ValueError as error:
        raise ListenError(str(error)) from None
    if address.secure:
        raise ListenError(f"{text}: TLS is not served")
    return address


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
