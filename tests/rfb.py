"""A viewer of screens by VNC: a handshake, pictures and keys.

Source: RFC 6143.
"""

import socket
import struct
import time

_WAIT_S = 30.0
_RAW, _NO_SECURITY, _SHARED = 0, 1, 1
_UPDATE, _BELL, _CUT_TEXT = 0, 2, 3
_PIXEL_BYTES = 4
RETURN = 0xFF0D


class Viewer:
    """A connection to a server that asks for no password."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._socket = socket.create_connection(address, timeout=_WAIT_S)
        self._reader = self._socket.makefile("rb")
        self.version = self._read(12)
        self._socket.sendall(self.version)
        assert _NO_SECURITY in self._read(self._read(1)[0])
        self._socket.sendall(bytes([_NO_SECURITY]))
        assert self._read(4) == bytes(4), "the handshake was refused"
        self._socket.sendall(bytes([_SHARED]))
        self.width, self.height, _pixels, length = struct.unpack(">HH16sI", self._read(24))
        self.name = self._read(length).decode()
        """What the server calls the screen."""
        self._socket.sendall(struct.pack(">BxHi", 2, 1, _RAW))
        self._picture = bytearray(self.width * self.height * _PIXEL_BYTES)
        self._update(incremental=False)

    def __enter__(self) -> "Viewer":
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.close()
        self._socket.close()

    def lit(self) -> int:
        """How many pixels of the last picture are not black."""
        return sum(map(any, struct.iter_unpack("BBBx", self._picture)))

    def press(self, keysym: int) -> None:
        """One key, down and up."""
        for down in (1, 0):
            self._socket.sendall(struct.pack(">BBxxI", 4, down, keysym))

    def until_lit(self, more_than: int) -> None:
        """Waits for a picture with so many pixels that are not black."""
        ends = time.monotonic() + _WAIT_S
        while self.lit() <= more_than:
            assert time.monotonic() < ends, f"{self.lit()} pixels are lit"
            self._update(incremental=True)

    def _update(self, *, incremental: bool) -> None:
        """Asks for what has changed, and waits for it."""
        self._socket.sendall(struct.pack(">BBHHHH", 3, incremental, 0, 0, self.width, self.height))
        while (kind := self._read(1)[0]) != _UPDATE:
            assert kind in (_BELL, _CUT_TEXT), kind
            if kind == _CUT_TEXT:
                self._read(struct.unpack(">3xI", self._read(7))[0])
        for _ in range(struct.unpack(">xH", self._read(3))[0]):
            self._rectangle()

    def _rectangle(self) -> None:
        x, y, width, height, encoding = struct.unpack(">HHHHi", self._read(12))
        assert encoding == _RAW
        for row in range(y, y + height):
            start = (row * self.width + x) * _PIXEL_BYTES
            self._picture[start : start + width * _PIXEL_BYTES] = self._read(width * _PIXEL_BYTES)

    def _read(self, count: int) -> bytes:
        data = self._reader.read(count)
        assert len(data) == count, "the server has hung up"
        return data
