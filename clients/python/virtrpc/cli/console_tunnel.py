"""`console vnc` and `console spice`: a local port for any viewer, and behind it a tunnel."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress

import click

from virtrpc.cli.command import Verb
from virtrpc.cli.naming import INSTANCE, instance_id
from virtrpc.cli.session import Session, pass_session
from virtrpc.client import Client
from virtrpc.errors import RpcError
from virtrpc.v1.console_pb2 import (
    ConsoleCloseReason,
    ConsoleType,
    TunnelConsoleOpen,
    TunnelConsoleRequest,
    TunnelConsoleResponse,
)

_READ_BYTES = 64 * 1024
_HOST = "127.0.0.1"
_DETACHED = ConsoleCloseReason.CONSOLE_CLOSE_REASON_DETACHED


class Tunnel:
    """One viewer's connection. A SPICE client opens several."""

    def __init__(self, client: Client, opening: TunnelConsoleOpen, viewer: socket.socket) -> None:
        self._client = client
        self._opening = opening
        self._viewer = viewer

    def run(self) -> str:
        """Carries bytes until either end closes; gives why the daemon ended it, if it did."""
        stream = self._client.consoles.TunnelConsole(self._requests())
        try:
            for message in stream:
                if message.HasField("closed"):
                    detached = message.closed.reason == _DETACHED
                    return "" if detached else message.closed.message
                self._viewer.sendall(message.data)
        except OSError:  # the viewer has gone
            stream.cancel()
        finally:
            # Wakes the thread that reads what the viewer sends.
            self._hang_up()
        return ""

    def _requests(self) -> Iterator[TunnelConsoleRequest]:
        yield TunnelConsoleRequest(open=self._opening)
        while data := self._received():
            yield TunnelConsoleRequest(data=data)

    def _received(self) -> bytes:
        try:
            return self._viewer.recv(_READ_BYTES)
        except OSError:
            return b""

    def _hang_up(self) -> None:
        with suppress(OSError):
            self._viewer.shutdown(socket.SHUT_RDWR)
        self._viewer.close()


def opened(client: Client, opening: TunnelConsoleOpen) -> None:
    """Raises the RpcError with which a tunnel would be refused."""
    stream = client.consoles.TunnelConsole(iter([TunnelConsoleRequest(open=opening)]))
    first: TunnelConsoleResponse = next(iter(stream))
    assert first.HasField("opened")  # noqa: S101 - the contract
    stream.cancel()


def command(kind: ConsoleType.ValueType, name: str, example: str) -> click.Command:
    """The command for one protocol; `example` says {port}."""

    @click.command(name, cls=Verb, help=_help(name))
    @click.argument("instance", type=INSTANCE)
    @click.option(
        "--port",
        type=click.IntRange(0, 65535),
        default=0,
        help="Local port.  [default: a free one]",
    )
    @click.option("--once", is_flag=True, help="End with the first connection.")
    @pass_session
    def tunnel(session: Session, /, *, instance: str, port: int, once: bool) -> None:
        opening = TunnelConsoleOpen(instance_id=instance_id(session.client, instance), type=kind)
        opened(session.client, opening)
        with _listening(port) as listener:
            bound = listener.getsockname()[1]
            click.echo(f"{_HOST}:{bound}")
            session.note(f"e.g. {example.format(port=bound)}; until Ctrl-C")
            _serve(listener, session, opening, once=once)

    return tunnel


def _help(name: str) -> str:
    return (
        f"Opens a port on 127.0.0.1 for {name.upper()} viewers, until Ctrl-C.\n\n"
        "Everyone on this machine can connect to it meanwhile."
    )


def _listening(port: int) -> socket.socket:
    try:
        return socket.create_server((_HOST, port))
    except OSError as error:
        raise click.ClickException(f"cannot listen on {_HOST}:{port}: {error.strerror}") from None


def _serve(
    listener: socket.socket, session: Session, opening: TunnelConsoleOpen, *, once: bool
) -> None:
    while True:
        viewer, _ = listener.accept()
        viewer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        run = _told(Tunnel(session.client, opening, viewer).run, session)
        if once:
            run()
            return
        threading.Thread(target=run, daemon=True).start()


def _told(run: Callable[[], str], session: Session) -> Callable[[], None]:
    def told() -> None:
        try:
            why = run()
            if why:
                session.note(f"connection ended: {why}")
        except RpcError as error:
            session.note(f"connection refused: {error}")

    return told


vnc = command(ConsoleType.CONSOLE_TYPE_VNC, "vnc", "vncviewer 127.0.0.1::{port}")
spice = command(ConsoleType.CONSOLE_TYPE_SPICE, "spice", "remote-viewer spice://127.0.0.1:{port}")
