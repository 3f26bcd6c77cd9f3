"""What is too long or too secret for arguments, which everybody on a host can read."""

from __future__ import annotations

import sys

import click


def password(label: str) -> str:
    """A password: asked for twice on a terminal, else standard input less one newline.

    Raises click.UsageError when there is none, or it is no UTF-8.
    """
    return _secret(label, kind="password", confirmed=True)


def token(label: str) -> str:
    """As `password`, of what need not be typed twice as it exists elsewhere."""
    return _secret(label, kind="token", confirmed=False)


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


def _secret(label: str, *, kind: str, confirmed: bool) -> str:
    if sys.stdin.isatty():
        asked: str = click.prompt(label, hide_input=True, confirmation_prompt=confirmed, err=True)
        return asked
    try:
        text = sys.stdin.buffer.read().decode()
    except UnicodeDecodeError:
        # Not chained: the original error holds the bytes.
        raise click.UsageError(f"the {kind} on standard input is not UTF-8") from None
    given = text.removesuffix("\n").removesuffix("\r")
    if not given:
        raise click.UsageError(f"there is no {kind} on standard input")
    return given
