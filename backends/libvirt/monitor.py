"""QEMU's monitor, for a few questions in a row.

Source: "QEMU Machine Protocol Specification" of QEMU's documentation.
"""

import json
import socket
import time
from types import TracebackType
from typing import Any, Self

_LONGEST_BYTES = 1 << 20


class RefusedError(Exception):
    """QEMU says no to a command; the message is QEMU's."""


class Monitor:
    """One conversation; `with` ends it. Calls block, and raise OSError or ValueError.

    A monitor has one client at a time: it answers nobody else until this one has gone. Who speaks
    may be a guest that has broken out into its QEMU: what it says is bounded in time and size.
    """

    def __init__(self, path: str, *, timeout_s: float) -> None:
        """Connects; the whole conversation may take `timeout_s`."""
        self._end = time.monotonic() + timeout_s
        self._unread = b""
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
                return said["return"]  # anything else is an event

    def close(self) -> None:
        """Hangs up."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.close()

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
