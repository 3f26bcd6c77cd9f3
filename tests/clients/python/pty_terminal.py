"""A command in a terminal of its own, as a person sits before it."""

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Sequence

_WAIT_S = 30.0


class Terminal:
    """A command whose terminal a test reads and types at."""

    def __init__(self, command: Sequence[str], *, columns: int = 80, rows: int = 24) -> None:
        self.shown = b""
        self._ours, theirs = pty.openpty()
        self._resize(theirs, columns, rows)
        self.before = termios.tcgetattr(theirs)
        self._theirs = theirs
        self.process = subprocess.Popen(
            command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
        )

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._ours)
        os.close(self._theirs)

    @property
    def as_before(self) -> bool:
        """The terminal's settings are those that the command found."""
        return termios.tcgetattr(self._theirs) == self.before

    def type(self, keys: bytes) -> None:
        """Presses keys."""
        os.write(self._ours, keys)

    def until(self, text: bytes) -> bytes:
        """Everything shown since the last such call, up to and with a text."""
        ends = time.monotonic() + _WAIT_S
        while text not in self.shown:
            ready, _, _ = select.select([self._ours], [], [], ends - time.monotonic())
            assert ready, f"{text!r} is not in {self.shown[-1000:]!r}"
            self.shown += os.read(self._ours, 4096)
        seen, found, self.shown = self.shown.partition(text)
        return seen + found

    def resize(self, columns: int, rows: int) -> None:
        """Gives the window another size."""
        self._resize(self._theirs, columns, rows)
        self.process.send_signal(signal.SIGWINCH)

    def exit_code(self) -> int:
        """Waits for the command's end."""
        return self.process.wait(_WAIT_S)

    @staticmethod
    def _resize(descriptor: int, columns: int, rows: int) -> None:
        fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
