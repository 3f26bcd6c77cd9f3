"""`console`: what instances say on their serial ports, byte for byte, and ways to talk to them."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import click

from virtrpc.cli.command import Noun
from virtrpc.cli.console_access import access, pool
from virtrpc.cli.console_attach import attach
from virtrpc.cli.console_tunnel import spice, vnc
from virtrpc.cli.naming import INSTANCE, instance_id
from virtrpc.cli.parameters import BYTES, MOST
from virtrpc.cli.session import Session, pass_session
from virtrpc.v1.console_pb2 import (
    GetConsoleOutputRequest,
    GetConsoleOutputResponse,
    StreamConsoleOutputResponse,
)

MAX_BYTES = 1024 * 1024
FOLLOW_TAIL_BYTES = 4096
offset_option = click.option(
    "--offset",
    type=click.IntRange(min=0, max=MOST),
    metavar="N",
    help="Begin at this byte of the log.",
)


@click.group(cls=Noun)
def noun() -> None:
    """What instances say on their serial ports, and ways to talk to them."""


for verb in (access, attach, pool, spice, vnc):
    noun.add_command(verb)


@noun.command("log")
@click.argument("instance", type=INSTANCE)
@click.option("--tail", "tail_bytes", type=BYTES, help="Only so many bytes of its end, e.g. 64K.")
@offset_option
@pass_session
def log(session: Session, /, *, instance: str, tail_bytes: int | None, offset: int | None) -> None:
    """Writes the console log as it is now; all that is retained, unless told otherwise."""
    _exclude(tail_bytes, offset)
    request = GetConsoleOutputRequest(
        instance_id=instance_id(session.client, instance), max_bytes=MAX_BYTES
    )
    if tail_bytes is None:
        request.offset = offset or 0
    else:
        request.tail_bytes = tail_bytes
    for piece in _pieces(session, request):
        # A log that has lost its beginning is no surprise; a hole in it is.
        if piece.expired_bytes and (offset or piece.offset > piece.expired_bytes):
            session.note(_expired(piece.expired_bytes))
        if session.output.format == "table":
            _write(piece.data)
        else:
            session.output.element(piece, lambda: "")


@noun.command("follow")
@click.argument("instance", type=INSTANCE)
@click.option(
    "--tail",
    "tail_bytes",
    type=BYTES,
    help="Begin so many bytes before the end, e.g. 64K.  [default: 4K]",
)
@offset_option
@pass_session
def follow(
    session: Session, /, *, instance: str, tail_bytes: int | None, offset: int | None
) -> None:
    """Writes the console's output as it comes, until Ctrl-C or the instance's end."""
    _exclude(tail_bytes, offset)
    if tail_bytes is None and offset is None:
        tail_bytes = FOLLOW_TAIL_BYTES
    for message in session.client.follow_console(
        instance_id(session.client, instance),
        offset=offset,
        tail_bytes=tail_bytes,
        on_retry=session.note_retry,
    ):
        if session.output.format == "table":
            _tell(session, message)
        else:
            session.output.element(message, lambda: "")


def _exclude(tail_bytes: int | None, offset: int | None) -> None:
    if tail_bytes is not None and offset is not None:
        raise click.UsageError("--tail and --offset exclude each other")


def _pieces(
    session: Session, request: GetConsoleOutputRequest
) -> Iterator[GetConsoleOutputResponse]:
    """The log in order, up to the end that it had at the first call."""
    end_offset = None
    while True:
        piece = session.client.consoles.GetConsoleOutput(request)
        yield piece
        end_offset = piece.end_offset if end_offset is None else end_offset
        if piece.next_offset >= end_offset or piece.next_offset == piece.offset:
            return
        request.log_id, request.offset = piece.log_id, piece.next_offset


def _tell(session: Session, message: StreamConsoleOutputResponse) -> None:
    kind = message.WhichOneof("message")
    if kind == "data":
        _write(message.data.data)
    elif kind == "expired":
        session.note(_expired(message.expired.end - message.expired.begin))
    elif kind == "moved":
        session.note(f"\nthe instance has moved to {message.moved.host_uri}")


def _expired(count: int) -> str:
    return f"\n{count} bytes have expired"


def _write(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
