"""Who writes on which serial port: one at a time, until another takes over.

reader ──claim──▶ writer ──release──▶ gone
                    ╰──another takes over──▶ lost: what is still written is dropped
"""

import asyncio
from collections.abc import Awaitable, Callable

from backends.errors import InstanceNotFoundError, WrongStateError
from service.consoles.port import SerialPort

OpenSerial = Callable[[str], Awaitable[int]]


class Writer:
    """One who may write, as long as nobody takes over. Event loop only."""

    def __init__(
        self,
        instance_id: str,
        identity: str,
        *,
        open_serial: OpenSerial,
        notify: Callable[[], None],
    ) -> None:
        """`notify` is called when the writer has been lost to another."""
        self.identity = identity
        self.lost_to: str | None = None
        """Identity of who took over; None: nobody did."""
        self._instance_id = instance_id
        self._open_serial = open_serial
        self._notify = notify
        self._port: SerialPort | None = None

    async def write(self, data: bytes) -> int:
        """Waits until the guest has taken the input; gives how many bytes it did not get.

        After a takeover there are no such bytes: nobody is told of them.
        """
        port = await self._opened()
        taken = await port.write(data) if port is not None else 0
        return 0 if self.lost_to is not None else len(data) - taken

    def lose(self, to: str) -> None:
        """Another has taken over."""
        self.lost_to = to
        self.close()
        self._notify()

    def close(self) -> None:
        """Lets go of the port."""
        if self._port is not None:
            self._port.close()

    async def _opened(self) -> SerialPort | None:
        """The port, opened where it is not; None where the instance is off or another writes."""
        if self._port is not None and not self._port.closed:
            return self._port
        if self.lost_to is not None:
            return None
        try:
            descriptor = await self._open_serial(self._instance_id)
        except (WrongStateError, InstanceNotFoundError) as error:
            if error.reason == "NO_CONSOLE":
                raise
            return None
        self._port = SerialPort(descriptor)
        if self.lost_to is not None:
            self._port.close()
        return self._port


class Writers:
    """The writers of all serial ports. Event loop only."""

    def __init__(self, open_serial: OpenSerial) -> None:
        self._open_serial = open_serial
        self._by_instance: dict[str, Writer] = {}

    def identity(self, instance_id: str) -> str:
        """Who writes now; empty: nobody."""
        writer = self._by_instance.get(instance_id)
        return writer.identity if writer is not None else ""

    def claim(
        self, instance_id: str, identity: str, *, takeover: bool, notify: Callable[[], None]
    ) -> Writer:
        """Makes somebody the writer; raises WrongStateError where there is another."""
        present = self._by_instance.get(instance_id)
        if present is not None and not takeover:
            raise WrongStateError(
                f"{present.identity} writes on this console: take over, or only read",
                reason="WRITER_PRESENT",
                metadata={"writer_identity": present.identity},
            )
        writer = Writer(instance_id, identity, open_serial=self._open_serial, notify=notify)
        self._by_instance[instance_id] = writer
        if present is not None:
            present.lose(identity)
        return writer

    def release(self, instance_id: str, writer: Writer) -> None:
        """A writer goes, lost or not."""
        writer.close()
        if self._by_instance.get(instance_id) is writer:
            del self._by_instance[instance_id]


async def cancelled(task: "asyncio.Task[None]") -> None:
    """Cancels a task and waits for its end; what it raised has been told elsewhere."""
    task.cancel()
    await asyncio.wait({task})
