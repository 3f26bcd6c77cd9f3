"""QEMU's monitor, for a few questions in a row.

Source: "QEMU Machine Protocol Specification" of QEMU's documentation.
"""

import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import structlog

_LONGEST_BYTES = 1 << 20
log = structlog.get_logger()


class RefusedError(Exception):
    """QEMU says no to a command; the message is QEMU's."""


class Monitor:
    """One conversation, to be closed. Calls block, and raise OSError or ValueError.

    A monitor has one client at a time: it answers nobody else until this one has gone. Who speaks
    may be a guest that has broken out into its QEMU: what it says is bounded in time and size.
    """

    def __init__(self, path: str, *, timeout_s: float) -> None:
        """Connects; the whole conversation may take `timeout_s`."""
        self.allow(timeout_s)
        self._unread = b""
        self._heard: Callable[[str, dict[str, Any]], None] = _nothing
        self._socket = socket.socket(socket.AF_UNIX)
        try:
            self._socket.settimeout(timeout_s)
            self._socket.connect(path)
            self._read()  # it greets
            self.execute("qmp_capabilities")
        except BaseException:
            self.close()
            raise

    def execute(self, command: str, **arguments: object) -> Any:
        """What a command gives; raises RefusedError, too."""
        request = {"execute": command, "arguments": arguments}
        self._socket.sendall(json.dumps(request).encode("ascii") + b"\n")
        while True:
            said = self._read()
            if "error" in said:
                raise RefusedError(said["error"])
            if "return" in said:
                return said["return"]
            self._hear(said)

    def obeys(self, command: str, **arguments: object) -> bool:
        """Carries a command out; False where QEMU refuses it, which is logged for debugging."""
        try:
            self.execute(command, **arguments)
        except RefusedError as error:
            log.debug("QEMU refuses", command=command, arguments=arguments, reason=str(error))
            return False
        return True

    @contextmanager
    def listening(self, heard: Callable[[str, dict[str, Any]], None]) -> Iterator[None]:
        """`heard` is called with the name and the data of each event that comes within."""
        self._heard = heard
        try:
            yield
        finally:
            self._heard = _nothing

    def listen(self, wants_more: Callable[[], bool]) -> None:
        """Hears events, while more are wanted and the time lasts."""
        try:
            while wants_more():
                self._hear(self._read())
        except TimeoutError:
            return

    def allow(self, timeout_s: float) -> None:
        """What follows may take so long, whatever the conversation has taken."""
        self._end = time.monotonic() + timeout_s

    def close(self) -> None:
        """Hangs up."""
        self._socket.close()

    def _hear(self, said: dict[str, Any]) -> None:
        self._heard(said.get("event", ""), said.get("data", {}))

    def _read(self) -> dict[str, Any]:
        while b"\n" not in self._unread:
            left_s = self._end - time.monotonic()
            if left_s <= 0:
                raise TimeoutError("QEMU has not answered in time")
            self._socket.settimeout(left_s)
            received = self._socket.recv(_LONGEST_BYTES)
            if not received:
                raise ConnectionResetError("QEMU has hung up")
            self._unread += received
            if len(self._unread) > _LONGEST_BYTES:
                raise ValueError("QEMU talks without an end")
        line, _, self._unread = self._unread.partition(b"\n")
        said = json.loads(line)
        if not isinstance(said, dict):
            raise ValueError("QEMU says what its protocol does not allow")
        return said


def _nothing(_event: str, _data: dict[str, Any]) -> None:
    """Nobody listens."""
