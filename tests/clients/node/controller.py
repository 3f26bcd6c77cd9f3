"""A controller in a process of its own, and what it prints."""

import re
import signal
import subprocess
from pathlib import Path

EXIT_TIMEOUT_S = 60.0
_EVENT = re.compile(r"event +#(?P<sequence>\d+) (?P<type>[A-Z_]+)")


class Controller:
    """`node dist/controller.js`. Its lines are read as they come; reads block."""

    def __init__(self, script: Path, *arguments: str, errors: Path) -> None:
        self.lines: list[str] = []
        self._errors = errors
        with errors.open("wb") as file:
            self._process = subprocess.Popen(
                ["node", str(script), *arguments], stdout=subprocess.PIPE, stderr=file, text=True
            )

    @property
    def errors(self) -> str:
        """What it has printed to standard error."""
        return self._errors.read_text()

    def line(self, pattern: str) -> str:
        """The first line from here on that matches."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.lines.append(line.rstrip("\n"))
            if re.search(pattern, line):
                return self.lines[-1]
        raise AssertionError(f"no line matches {pattern}:\n{self.output()}")

    def send(self, number: signal.Signals) -> None:
        """Sends it a signal."""
        self._process.send_signal(number)

    def exit_code(self) -> int:
        """Reads it to its end."""
        assert self._process.stdout is not None
        self.lines += self._process.stdout.read().splitlines()
        return self._process.wait(EXIT_TIMEOUT_S)

    def output(self) -> str:
        """All that it has printed so far, errors last."""
        return "\n".join([*self.lines, self.errors])

    def events(self) -> list[tuple[int, str]]:
        """Sequence and type of the events printed, without those of the stream itself."""
        found = [match for line in self.lines if (match := _EVENT.match(line))]
        events = [(int(match["sequence"]), match["type"]) for match in found]
        return [event for event in events if not event[1].startswith("SNAPSHOT")]

    def close(self) -> None:
        """Ends it, if need be, at once."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()
