"""A command in tmux: what a person would see there, and keys as they press them."""

import os
import select
import shlex
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

_WAIT_S = 45.0
_SETTINGS = "set -g history-limit 50000\nset -g remain-on-exit on\nset -g default-size 100x30\n"


class Tmux:
    """One window of a server of its own."""

    def __init__(self, folder: Path, command: Sequence[str]) -> None:
        """`folder`: an empty one for its socket."""
        self._socket = folder / "tmux"
        settings, news = folder / "tmux.conf", folder / "news"
        settings.write_text(_SETTINGS)
        os.mkfifo(news)
        # Open for writing as well: else it would wait for tmux here.
        self._news = os.open(news, os.O_RDWR | os.O_NONBLOCK)
        self._call(
            "-f", str(settings), "new-session", "-d", "-s", "window", *command,
            ";", "pipe-pane", f"cat > {shlex.quote(str(news))}",
        )  # fmt: skip

    def __enter__(self) -> "Tmux":
        return self

    def __exit__(self, *_: object) -> None:
        self._call("kill-server")
        os.close(self._news)

    def text(self) -> str:
        """All that was ever shown, as lines that are joined where the window broke them."""
        return self._call("capture-pane", "-p", "-J", "-S", "-", "-t", "window")

    def until(self, text: str) -> str:
        """Waits until a text was shown; gives all that was."""
        return self._until(text, lambda shown: text in shown)

    def until_another(self, text: str) -> str:
        """Waits until a text was shown once more than up to now; gives all that was."""
        times = self.text().count(text)
        return self._until(text, lambda shown: shown.count(text) > times)

    def _until(self, text: str, is_so: Callable[[str], bool]) -> str:
        ends = time.monotonic() + _WAIT_S
        while not is_so(shown := self.text()):
            ready, _, _ = select.select([self._news], [], [], ends - time.monotonic())
            assert ready, f"{text!r} is not in {shown[-1000:]!r}"
            os.read(self._news, 1 << 16)
        return shown

    def type(self, text: str) -> None:
        """Types a line."""
        self._call("send-keys", "-t", "window", "-l", text)
        self.press("Enter")

    def press(self, key: str) -> None:
        """One key, as tmux calls it, e.g. "C-]"."""
        self._call("send-keys", "-t", "window", key)

    def resize(self, columns: int, rows: int) -> None:
        """Gives the window another size."""
        self._call("resize-window", "-t", "window", "-x", str(columns), "-y", str(rows))

    def _call(self, *arguments: str) -> str:
        environment = {**os.environ, "TERM": "screen-256color", "LC_ALL": "C.UTF-8"}
        command = ["tmux", "-S", str(self._socket), *arguments]
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=_WAIT_S, check=True
        )
        return done.stdout
