"""`console attach`: the serial port in this terminal."""

from __future__ import annotations

import sys

import click

from virtrpc.attachment import ConsoleAttachment
from virtrpc.cli.command import Verb
from virtrpc.cli.naming import INSTANCE, instance_id
from virtrpc.cli.parameters import BYTES, Converted
from virtrpc.cli.session import Session, pass_session
from virtrpc.cli.terminal import (
    control_key,
    forward_input,
    raw_terminal,
    resizes_told,
    window,
    without_questions,
)
from virtrpc.errors import RpcError
from virtrpc.v1.console_pb2 import (
    AttachConsoleOpen,
    AttachConsoleResponse,
    ConsoleCloseReason,
    ConsoleMode,
    GetConsoleOutputRequest,
)

CONTROL_KEY = Converted("control key", lambda text: (text, control_key(text)))


@click.command("attach", cls=Verb)
@click.argument("instance", type=INSTANCE)
@click.option("--read-only", is_flag=True, help="Look, and type nothing.")
@click.option("--takeover", is_flag=True, help="Write even if somebody else does, who then reads.")
@click.option(
    "--tail", "tail_bytes", type=BYTES, help="Show so many bytes of the log first, e.g. 4K."
)
@click.option("--record", is_flag=True, help="Record it in the daemon's directory of recordings.")
@click.option(
    "--detach-key",
    type=CONTROL_KEY,
    default="^]",
    show_default=True,
    help="Key that ends the attachment.",
)
@pass_session
def attach(
    session: Session,
    /,
    *,
    instance: str,
    read_only: bool,
    takeover: bool,
    tail_bytes: int | None,
    record: bool,
    detach_key: tuple[str, bytes],
) -> None:
    """Attaches this terminal to the serial port, until Ctrl-] or the instance's end.

    Without a terminal, standard input is typed and its end detaches.
    """
    if read_only and takeover:
        raise click.UsageError("--read-only and --takeover exclude each other")
    mode = ConsoleMode.CONSOLE_MODE_READER if read_only else ConsoleMode.CONSOLE_MODE_WRITER
    opening = AttachConsoleOpen(
        instance_id=instance_id(session.client, instance),
        mode=mode,
        takeover=takeover,
        record=record,
    )
    old_until = 0
    if tail_bytes is not None:
        old_until = _begin_at_tail(session, opening, tail_bytes)
    size = window()
    if size is not None:
        opening.size.columns, opening.size.rows = size
    attachment = session.client.attach_console(opening, on_retry=_note_retry)
    name, key = detach_key
    with raw_terminal() as raw:
        try:
            _carry(attachment, key if raw else None, name, old_until=old_until if raw else 0)
        except KeyboardInterrupt:
            if not attachment.detached:
                raise
            _note("detached")  # there was no connection


def _begin_at_tail(session: Session, opening: AttachConsoleOpen, tail_bytes: int) -> int:
    """Gives the offset up to which the output is an old story."""
    request = GetConsoleOutputRequest(
        instance_id=opening.instance_id, tail_bytes=tail_bytes, max_bytes=1
    )
    piece = session.client.consoles.GetConsoleOutput(request)
    opening.offset, opening.log_id = piece.offset, piece.log_id
    return piece.end_offset


def _carry(
    attachment: ConsoleAttachment, key: bytes | None, key_name: str, *, old_until: int
) -> None:
    reading = False
    kind = None
    with resizes_told(attachment):
        for message in attachment:
            if not reading:
                # Not earlier: what is typed before the port is open would be lost.
                forward_input(attachment, detach_key=key)
                _greet(message, key_name if key else "")
            reading = True
            kind = message.WhichOneof("message")
            _show(message, old_until)
    if kind not in ("closed", "moved"):
        _note("detached")  # the daemon was not waited for: it waits for a guest that is deaf


def _greet(message: AttachConsoleResponse, key_name: str) -> None:
    how = f", detach with {key_name}" if key_name else ""
    recording = message.opened.recording
    _note(f"attached{how}" + (f", recorded as {recording}" if recording else ""))


def _show(message: AttachConsoleResponse, old_until: int) -> None:
    kind = message.WhichOneof("message")
    if kind == "data":
        is_old = message.data.offset < old_until
        data = without_questions(message.data.data) if is_old else message.data.data
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    elif kind == "expired":
        _note(f"{message.expired.end - message.expired.begin} bytes have expired")
    elif kind == "writer_lost":
        _note(f"{message.writer_lost.writer_identity} has taken over: you are reading only")
    elif kind == "input_dropped":
        _note("the instance is off: what was typed has gone nowhere")
    elif kind == "moved":
        _note(f"the instance has moved to {message.moved.host_uri}")
    elif kind == "closed":
        detached = message.closed.reason == ConsoleCloseReason.CONSOLE_CLOSE_REASON_DETACHED
        _note("detached" if detached else message.closed.message)


def _note_retry(error: RpcError, pause_s: float) -> None:
    _note(f"connection lost, trying again in {pause_s:.1f} s: {error}")


def _note(text: str) -> None:
    """A line of ours on standard error, wherever the guest has left the cursor."""
    ends = ("\r\n", "\r\n") if sys.stdin.isatty() else ("", "\n")
    sys.stderr.write(f"{ends[0]}[{text}]{ends[1]}")
    sys.stderr.flush()
