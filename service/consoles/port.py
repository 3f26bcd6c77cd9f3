"""An open serial port: input goes in; output comes out and is thrown away, the log has it.

open ──write──▶ open ──the machine ends, or close()──▶ closed
"""

import asyncio
import os

_READ_BYTES = 64 * 1024


class SerialPort:
    """One writer's way into a guest. Event loop only."""

    def __init__(self, descriptor: int) -> None:
        """`descriptor`: non-blocking, of the machine's serial port; closed with this."""
        self._descriptor: int | None = descriptor
        self._loop = asyncio.get_running_loop()
        self._writable: asyncio.Future[None] | None = None
        # The machine waits for a reader as soon as somebody has its port open.
        self._loop.add_reader(descriptor, self._drain)

    @property
    def closed(self) -> bool:
        """No more input can be written."""
        return self._descriptor is None

    async def write(self, data: bytes) -> int:
        """Waits until the machine has taken the bytes; gives how many it took before it ended."""
        left = memoryview(data)
        while left and self._descriptor is not None:
            try:
                left = left[os.write(self._descriptor, left) :]
            except BlockingIOError:
                await self._room(self._descriptor)
            except OSError:  # EIO, EPIPE: the machine has ended
                self.close()
        return len(data) - len(left)

    def close(self) -> None:
        """Lets go of the port; who waits in `write` returns."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is None:
            return
        self._loop.remove_reader(descriptor)
        self._loop.remove_writer(descriptor)
        os.close(descriptor)
        self._wake()

    async def _room(self, descriptor: int) -> None:
        self._writable = self._loop.create_future()
        self._loop.add_writer(descriptor, self._wake)
        try:
            await self._writable
        finally:
            if self._descriptor is not None:
                self._loop.remove_writer(descriptor)

    def _wake(self) -> None:
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)

    def _drain(self) -> None:
        assert self._descriptor is not None  # noqa: S101 - or it would not be watched
        try:
            output = os.read(self._descriptor, _READ_BYTES)
        except BlockingIOError:
            return
        except OSError:  # EIO: the other end of the pty has gone
            output = b""
        if not output:
            self.close()
