"""An attachment to a serial port, and a tunnel to a screen, as tests hold them."""

import queue
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from virtrpc.v1 import console_pb2 as pb

from tests.daemon import Connection
from tests.instances import TIMEOUT_S

Request = TypeVar("Request", pb.AttachConsoleRequest, pb.TunnelConsoleRequest)


class _Stream(Generic[Request]):
    """A bidirectional stream whose messages a test sends one by one."""

    def __init__(self) -> None:
        self._requests: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
        self.responses: Any = iter(())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.half_close()
        self.responses.cancel()

    def send(self, request: Request) -> None:
        """One message."""
        self._requests.put(request)

    def half_close(self) -> None:
        """Nothing more will be sent."""
        self._requests.put(None)

    def sent(self) -> Iterator[Request]:
        """What gRPC takes the messages from."""
        return iter(self._requests.get, None)


class Attached(_Stream[pb.AttachConsoleRequest]):
    """An attachment, opened with these fields of AttachConsoleOpen."""

    def __init__(self, connection: Connection, instance_id: str, **fields: Any) -> None:
        super().__init__()
        self.offset = 0
        self.text = b""
        asked = pb.AttachConsoleOpen(instance_id=instance_id, **fields)
        self.send(pb.AttachConsoleRequest(open=asked))
        self.responses = connection.consoles.AttachConsole(self.sent(), timeout=TIMEOUT_S)

    def opened(self) -> pb.AttachConsoleOpened:
        """The first message."""
        first = next(self.responses)
        assert first.HasField("opened"), first
        self.offset = first.opened.offset
        opened: pb.AttachConsoleOpened = first.opened
        return opened

    def type(self, text: bytes) -> None:
        """Input for the guest."""
        self.send(pb.AttachConsoleRequest(input=text))

    def next(self) -> pb.AttachConsoleResponse:
        """The next message; output is held to follow without a gap."""
        message: pb.AttachConsoleResponse = next(self.responses)
        if message.HasField("data"):
            assert message.data.offset == self.offset
            self.offset += len(message.data.data)
            self.text += message.data.data
        elif message.HasField("expired"):
            assert message.expired.begin == self.offset
            self.offset = message.expired.end
        return message

    def until(self, text: bytes) -> bytes:
        """What was shown so far, as soon as a text is in it."""
        while text not in self.text:
            message = self.next()
            assert message.HasField("data"), message
        return self.text

    def notice(self, kind: str) -> Any:
        """The next message that is not output."""
        while (message := self.next()).WhichOneof("message") in ("data", "expired"):
            pass
        assert message.WhichOneof("message") == kind, message
        return getattr(message, kind)


class Tunnelled(_Stream[pb.TunnelConsoleRequest]):
    """A tunnel, opened with these fields of TunnelConsoleOpen."""

    def __init__(self, connection: Connection, instance_id: str, **fields: Any) -> None:
        super().__init__()
        self.data = b""
        asked = pb.TunnelConsoleOpen(instance_id=instance_id, **fields)
        self.send(pb.TunnelConsoleRequest(open=asked))
        self.responses = connection.consoles.TunnelConsole(self.sent(), timeout=TIMEOUT_S)

    def opened(self) -> None:
        """Waits for the first message."""
        first = next(self.responses)
        assert first.HasField("opened"), first

    def write(self, data: bytes) -> None:
        """Bytes for the console."""
        self.send(pb.TunnelConsoleRequest(data=data))

    def read(self, count: int) -> bytes:
        """So many bytes of the console."""
        while len(self.data) < count:
            message = next(self.responses)
            assert message.HasField("data"), message
            self.data += message.data
        read, self.data = self.data[:count], self.data[count:]
        return read

    def closed(self) -> "pb.ConsoleCloseReason.ValueType":
        """Why it ends; nothing may follow."""
        *_, last = self.responses
        assert last.HasField("closed"), last
        reason: pb.ConsoleCloseReason.ValueType = last.closed.reason
        return reason
