"""A storage server that is asked before a hypervisor is: it has so long, and no longer."""

import socket
import time


class Peer:
    """A connection to a server that is not trusted to answer, or ever to end."""

    def __init__(self, timeout_s: float) -> None:
        self._end = time.monotonic() + timeout_s
        self._socket: socket.socket | None = None

    def connect(self, address: tuple[str, int] | str) -> None:
        """To a host and port, or a Unix socket; a former connection is closed."""
        self.close()
        if isinstance(address, str):
            self._socket = socket.socket(socket.AF_UNIX)
            self._socket.settimeout(self._left())
            self._socket.connect(address)
        else:
            self._socket = socket.create_connection(address, self._left())

    def send(self, data: bytes) -> None:
        """Sends all of it; raises OSError, TimeoutError when the time is up."""
        connected = self._connected()
        connected.sendall(data)

    def receive(self, length: int) -> bytes:
        """Exactly so many bytes; raises as `send` does, or where they do not come."""
        data = b""
        while len(data) < length:
            chunk = self._connected().recv(length - len(data))
            if not chunk:
                raise ConnectionResetError("it closed the connection")
            data += chunk
        return data

    def close(self) -> None:
        """Nothing where there is no connection."""
        if self._socket is not None:
            self._socket.close()

    def __enter__(self) -> "Peer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _connected(self) -> socket.socket:
        assert self._socket is not None  # noqa: S101
        self._socket.settimeout(self._left())
        return self._socket

    def _left(self) -> float:
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError("the server took too long")
        return left
