"""The user's terminal, byte by byte: raw input, its window's size, a key to leave by.

Where standard input is no terminal, it is passed on until it ends.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import termios
import threading
import tty
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from virtrpc.attachment import ConsoleAttachment

_READ_BYTES = 4096
_PATIENCE_S = 0.2
# What a guest's program may have switched on and left: colours, mouse, other screen, hidden cursor.
_CALM = b"\x1b[0m\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1006l\x1b[?2004l\x1b[?1047l\x1b[?25h"

# What a terminal answers as if it were typed: ECMA-48 DA and DSR, xterm's DECRQM, XTVERSION,
# window reports, colours (OSC … ?) and DCS requests.
_QUESTION = re.compile(
    rb"\x1b\[[?>=]?[\d;]*[cn]|\x1b\[\??[\d;]*\$p|\x1b\[>\d*q|\x1b\[(?:1[13-9]|2[01])[\d;]*t"
    rb"|\x1b\][\d;]+;\?(?:\x07|\x1b\\)|\x1bP[+$]q[^\x1b]*\x1b\\|\x1bZ|\x05"
)


def without_questions(shown: bytes) -> bytes:
    """Old output: what it asks was answered long ago, and would be typed into what runs now."""
    return _QUESTION.sub(b"", shown)


def control_key(text: str) -> bytes:
    """ "^]" as the byte that the key sends. Raises ValueError for what is no control key."""
    if not re.fullmatch(r"\^[@-_a-z]", text):
        raise ValueError(f"{text!r} is no control key, e.g. ^] or ^A")
    return bytes([ord(text[1].upper()) & 0x1F])


def window() -> tuple[int, int] | None:
    """Columns and rows; None where there is no window."""
    try:
        size = os.get_terminal_size(sys.stdout.fileno())
    except OSError:
        return None
    return (size.columns, size.lines) if size.columns and size.lines else None


@contextmanager
def raw_terminal() -> Iterator[bool]:
    """Every key goes to the reader inside, Ctrl-C too; False where there is no terminal."""
    if not sys.stdin.isatty():
        yield False
        return
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    with _ends_in_order():
        tty.setraw(descriptor)
        try:
            yield True
        finally:
            with suppress(OSError, termios.error):  # hung up
                if sys.stdout.isatty():
                    sys.stdout.buffer.write(_CALM)
                    sys.stdout.flush()
                termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


@contextmanager
def _ends_in_order() -> Iterator[None]:
    """Whoever is told to end leaves the terminal as it was: its shell goes on in it."""

    def end(number: int, _: object) -> None:
        sys.exit(128 + number)

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def resizes_told(attachment: ConsoleAttachment) -> Iterator[None]:
    """Tells the attachment of each new size of the window."""

    def tell(*_: object) -> None:
        size = window()
        if size is not None:
            # Not here: a handler must not wait for what it interrupts.
            threading.Thread(target=attachment.resize, args=size, daemon=True).start()

    before = signal.signal(signal.SIGWINCH, tell)
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)


def _interrupt_the_wait() -> None:
    """Wakes the main thread, which waits for the next try: as Ctrl-C does elsewhere."""
    main = threading.main_thread().ident
    if main is not None:
        signal.pthread_kill(main, signal.SIGINT)


def forward_input(attachment: ConsoleAttachment, *, detach_key: bytes | None) -> threading.Thread:
    """Passes standard input on, in a thread, until it ends or the key is pressed.

    With a key nothing waits for a guest that takes no input: else the key would wait too.
    """
    patience_s = _PATIENCE_S if detach_key else None

    def run() -> None:
        while data := os.read(sys.stdin.fileno(), _READ_BYTES):
            typed, key, _ = data.partition(detach_key) if detach_key else (data, b"", b"")
            if typed and not attachment.send(typed, timeout_s=patience_s):
                sys.stderr.write("\a\r\n[the guest takes no input: what was typed is dropped]\r\n")
                sys.stderr.flush()
            if key:
                break
        connected = attachment.connected
        attachment.detach()
        if not connected:
            _interrupt_the_wait()

    thread = threading.Thread(target=run, name="standard input", daemon=True)
    thread.start()
    return thread
