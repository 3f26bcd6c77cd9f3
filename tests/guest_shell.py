"""The root shell on a test guest's serial console, for what only the guest itself can tell.

Commands go to the other end of the pty that QEMU has open; answers come by the console.
"""

import itertools
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from virtrpc.v1 import console_pb2

from tests.daemon import Connection
from tests.instances import console_until

_numbers = itertools.count(1)


class GuestCommandError(AssertionError):
    """A command failed in the guest."""


class GuestShell:
    """Runs one command after the other; the guest has booted."""

    def __init__(self, connection: Connection, instance_id: str) -> None:
        self._connection = connection
        self._instance_id = instance_id

    def run(self, command: str) -> str:
        """What a command printed; raises GuestCommandError where it failed."""
        mark = f"{next(_numbers)}-{os.getpid()}"
        request = console_pb2.GetConsoleOutputRequest(instance_id=self._instance_id)
        offset = self._connection.consoles.GetConsoleOutput(request, timeout=10).end_offset
        # Marks are put together by the guest: the echo of the line is none.
        self._type(f"echo; echo 'begin '{mark}; {command}; echo 'end '{mark} $?\n")
        seen = console_until(
            self._connection, self._instance_id, f"\nend {mark} ".encode(), offset=offset
        )
        seen += b"" if seen.rstrip().endswith(b"0") else b"\n"
        found = re.search(rf"\nbegin {mark}\r?\n(.*?)end {mark} (\d*)", seen.decode(), re.DOTALL)
        assert found is not None, seen
        output = found[1].replace("\r\n", "\n").strip()
        status = found[2] or self._status(mark, offset)
        if status != "0":
            raise GuestCommandError(f"{command!r} ended with {status}: {output}")
        return output

    def _status(self, mark: str, offset: int) -> str:
        """The rest of the line may come a moment later."""
        seen = console_until(self._connection, self._instance_id, b"# ", offset=offset)
        while (found := re.search(rf"end {mark} (\d+)", seen.decode())) is None:
            offset_end = len(seen) + offset
            seen += console_until(self._connection, self._instance_id, b"\n", offset=offset_end)
        return found[1]

    def _type(self, line: str) -> None:
        with _pty(self._instance_id) as descriptor:
            # The guest's tty takes no more than a line of 4096 characters at a time.
            assert len(line) < 4000
            os.write(descriptor, line.encode())


@contextmanager
def _pty(instance_id: str) -> Iterator[int]:
    descriptor = os.open(f"/dev/pts/{_pty_number(instance_id)}", os.O_WRONLY | os.O_NOCTTY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _pty_number(instance_id: str) -> int:
    """Number of the pseudo terminal whose master QEMU has open."""
    (qemu,) = (
        process
        for process in psutil.process_iter(["cmdline"])
        if instance_id in " ".join(process.info["cmdline"] or ())
        and "qemu-system" in (process.info["cmdline"] or [""])[0]
    )
    for link in Path(f"/proc/{qemu.pid}/fd").iterdir():
        if str(link.readlink()).endswith("ptmx"):
            info = Path(f"/proc/{qemu.pid}/fdinfo/{link.name}").read_text(encoding="ascii")
            return int(re.search(r"^tty-index:\s*(\d+)", info, re.MULTILINE)[1])  # type: ignore[index]
    raise AssertionError("QEMU has no pseudo terminal")
