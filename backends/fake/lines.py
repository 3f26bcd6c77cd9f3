"""Open connections to the consoles of fake machines, which end when the machines do."""

import contextlib
import socket
import threading


class Lines:
    """Connections by instance. Callable from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[str, set[socket.socket]] = {}

    def add(self, instance_id: str, line: socket.socket) -> None:
        """Another one."""
        with self._lock:
            self._open.setdefault(instance_id, set()).add(line)

    def discard(self, instance_id: str, line: socket.socket) -> None:
        """One has ended by itself."""
        with self._lock:
            lines = self._open.get(instance_id, set())
            lines.discard(line)
            if not lines:
                self._open.pop(instance_id, None)

    def hang_up(self, instance_id: str) -> None:
        """Ends all of an instance's."""
        with self._lock:
            for line in self._open.get(instance_id, ()):
                with contextlib.suppress(OSError):
                    line.shutdown(socket.SHUT_RDWR)
