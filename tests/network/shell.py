"""The root shell on a guest's serial console, by its terminal on the host."""

import itertools
import os
import re
from pathlib import Path

from virtrpc.v1 import console_pb2

from tests.daemon import Connection
from tests.instances import TIMEOUT_S, console_until
from tests.machines import qemu_pids

_numbers = itertools.count(1)


class Shell:
    """One guest's. It has printed that it is ready."""

    def __init__(self, connection: Connection, instance_id: str) -> None:
        self._connection = connection
        self.instance_id = instance_id
        (pid,) = qemu_pids(instance_id)
        self._terminal = os.open(_terminal(pid), os.O_WRONLY | os.O_NOCTTY)

    def run(self, command: str) -> bool:
        """Whether a command succeeds; returns when it has ended."""
        number = next(_numbers)
        offset = self.begin(f'{command} && echo "end"-{number}-yes || echo "end"-{number}-no')
        seen = self.printed(f"\nend-{number}-", since=offset)
        word = f"end-{number}-"
        begun = offset + len(seen[: seen.rindex(word)].encode())
        return "yes" in self.printed("\n", since=begun)

    def begin(self, command: str) -> int:
        """Types a command; gives where the console was before."""
        request = console_pb2.GetConsoleOutputRequest(instance_id=self.instance_id, tail_bytes=0)
        end = self._connection.consoles.GetConsoleOutput(request, timeout=TIMEOUT_S).end_offset
        os.write(self._terminal, f"{command}\n".encode())
        return end

    def printed(self, text: str, *, since: int) -> str:
        """What was printed since then, until a text was in it."""
        seen = console_until(self._connection, self.instance_id, text.encode(), offset=since)
        return seen.decode(errors="replace")

    def close(self) -> None:
        """Types no more."""
        os.close(self._terminal)


def _terminal(pid: int) -> str:
    """The terminal that QEMU has for the serial port."""
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        if "ptmx" in str(descriptor.readlink()):
            facts = Path(f"/proc/{pid}/fdinfo/{descriptor.name}").read_text(encoding="ascii")
            found = re.search(r"tty-index:\s*(\d+)", facts)
            assert found is not None, facts
            return f"/dev/pts/{found[1]}"
    raise AssertionError("QEMU has no terminal")
