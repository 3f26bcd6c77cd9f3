"""What is too long or too secret for arguments, which everybody on a host can read."""

from __future__ import annotations

import sys

import click


def password(label: str) -> str:
    """A password: asked for twice on a terminal, else standard input less one newline.

    Raises click.UsageError when there is none, or it is no UTF-8.
    """
    if sys.stdin.isatty():
        asked: str = click.prompt(label, hide_input=True, confirmation_prompt=True, err=True)
        return asked
    try:
        text = sys.stdin.buffer.read().decode()
    except UnicodeDecodeError:
        # Not chained: the original error holds the bytes.
        raise click.UsageError("the password on standard input is not UTF-8") from None
    given = text.removesuffix("\n").removesuffix("\r")
    if not given:
        raise click.UsageError("there is no password on standard input")
    return given


def content(*, most_bytes: int) -> bytes:
    """All of standard input.

    Raises click.UsageError for a terminal, and for more than `most_bytes`.
    """
    if sys.stdin.isatty():
        raise click.UsageError("give the content on standard input: … < FILE")
    read = sys.stdin.buffer.read(most_bytes + 1)
    if len(read) > most_bytes:
        raise click.UsageError(f"standard input has more than {most_bytes} bytes")
    return read
