"""The root shell on a test guest's serial console, for what only the guest itself can tell.

Commands go to the other end of the pty that QEMU has open; answers come by the console.
"""

import itertools
import os
import re
import termios
import time
from pathlib import Path

import grpc
import psutil
from virtrpc.v1 import console_pb2

from tests.daemon import Connection
from tests.instances import TIMEOUT_S, console_until

_numbers = itertools.count(1)
_LONGEST_LINE = 4000  # a tty takes 4096 characters at a time


class GuestCommandError(AssertionError):
    """A command failed in the guest."""


class GuestShell:
    """Runs one command after the other; the guest has booted. Good until its machine ends.

    The pty stays open: QEMU listens only while somebody has it, and looks once a second.
    """

    def __init__(self, connection: Connection, instance_id: str) -> None:
        self._connection = connection
        self._instance_id = instance_id
        path = f"/dev/pts/{_pty_number(instance_id)}"
        self._pty = os.open(path, os.O_WRONLY | os.O_NOCTTY)
        self._wait_until_it_reads()

    def close(self) -> None:
        """Lets go of the console."""
        os.close(self._pty)

    def run(self, command: str) -> str:
        """What a command printed; raises GuestCommandError where it failed."""
        mark = f"{next(_numbers)}-{os.getpid()}"
        request = console_pb2.GetConsoleOutputRequest(instance_id=self._instance_id)
        offset = self._connection.consoles.GetConsoleOutput(request, timeout=10).end_offset
        # Marks are put together by the guest: the echo of the line is none.
        line = f"echo; echo 'begin '{mark}; {command}; echo 'end '{mark} $? .\n"
        assert len(line) < _LONGEST_LINE
        # Nobody reads here what the guest prints, and QEMU has it wait when that is too much.
        termios.tcflush(self._pty, termios.TCIFLUSH)
        os.write(self._pty, line.encode())
        seen = self._until(f"end {mark} ".encode(), offset)
        at = seen.index(f"end {mark} ".encode())
        seen = seen[:at] + self._until(b" .", offset + at)
        found = re.search(
            rf"begin {mark}\r?\n(.*?)end {mark} (\d+) \.",
            seen.decode("utf-8", "replace"),
            re.DOTALL,
        )
        assert found is not None, seen
        output = found[1].replace("\r\n", "\n").strip()
        if found[2] != "0":
            raise GuestCommandError(f"{command!r} ended with {found[2]}: {output}")
        return output

    def _wait_until_it_reads(self) -> None:
        """A shell that has just begun throws away what was typed before: it is typed again."""
        end = time.monotonic() + TIMEOUT_S
        while True:
            request = console_pb2.GetConsoleOutputRequest(instance_id=self._instance_id)
            offset = self._connection.consoles.GetConsoleOutput(request, timeout=10).end_offset
            os.write(self._pty, b"echo 'shell' 'reads'\n")
            try:
                console_until(
                    self._connection, self._instance_id, b"shell reads", offset=offset, timeout_s=3
                )
            except grpc.RpcError as error:
                if error.code() != grpc.StatusCode.DEADLINE_EXCEEDED or time.monotonic() > end:
                    raise
            else:
                return

    def _until(self, text: bytes, offset: int) -> bytes:
        return console_until(self._connection, self._instance_id, text, offset=offset)


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
