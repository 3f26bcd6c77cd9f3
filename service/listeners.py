"""Addresses that the daemon serves on, taken exclusively."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path

import grpc

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
            self._bind_unix(address) if address.startswith("unix:") else self._bind_tcp(address)
            for address in addresses
        ]

    def release(self) -> None:
        """Lets another daemon have the sockets."""
        for lock in self._locks:
            lock.release()

    def _bind_unix(self, address: str) -> str:
        path = Path(address.removeprefix("unix:").replace("//", "/", 1))
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        try:
            # gRPC takes a socket over from whoever has it: the lock says that nobody does.
            self._locks.append(Lock(path.with_name(path.name + ".lock")))
        except StateInUseError as error:
            raise ListenError(f"{address} is in use: {error}") from None
        with _umask(0o177):
            self._add(address)
        return address

    def _bind_tcp(self, address: str) -> str:
        host, _, _port = address.rpartition(":")
        if not self._insecure and not _is_loopback(host):
            raise ListenError(
                f"{address} is open to other hosts: serve on loopback or a Unix socket,"
                " or say --insecure"
            )
        return f"{host}:{self._add(address)}"

    def _add(self, address: str) -> int:
        try:
            port: int = self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise ListenError(f"cannot serve on {address}: is it in use?") from error
        if not port:
            raise ListenError(f"cannot serve on {address}: is it in use?")
        return port


@contextmanager
def _umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
