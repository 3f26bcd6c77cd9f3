"""A serial port, attached to: what is typed goes in, what the guest says comes out.

    attachment = client.attach_console(instance_id)
    attachment.send(b"uname\\r")        # from any thread
    for message in attachment:          # in one thread; ends after `moved` or `closed`
        ...

When the connection breaks it is opened again: output goes on after the last byte
that came. What was typed and is under way then is lost, and never sent twice.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from virtrpc.errors import RpcError
from virtrpc.resume import Backoff, OnRetry, Retries, follow
from virtrpc.v1.console_pb2 import (
    AttachConsoleOpen,
    AttachConsoleRequest,
    AttachConsoleResponse,
    ConsoleMode,
    ConsoleSize,
)

_MOST_WAITING = 64
_CLOSE_S = 2.0


class Outgoing:
    """Messages on their way to the daemon; who adds waits where it does not take them."""

    def __init__(self, first: AttachConsoleRequest) -> None:
        self._waiting = deque([first])
        self._changed = threading.Condition()
        self._closed = False

    def __iter__(self) -> Iterator[AttachConsoleRequest]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if not self._waiting:
                    return
                request = self._waiting.popleft()
                self._changed.notify_all()
            yield request

    def add(self, request: AttachConsoleRequest, *, timeout_s: float | None = None) -> bool:
        """Adds a message, nothing once closed; False where there is no room in time."""
        with self._changed:
            has_room = self._changed.wait_for(
                lambda: len(self._waiting) < _MOST_WAITING or self._closed, timeout_s
            )
            if has_room and not self._closed:
                self._waiting.append(request)
                self._changed.notify_all()
            return has_room

    def close(self) -> None:
        """Half-closes the stream after what waits."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


class AttachSubscription:
    """AttachConsole, resumed after the last byte that was passed on."""

    ends_with_stream = False

    def __init__(self, opening: AttachConsoleOpen) -> None:
        self.ended = False
        self.opened = False
        self._opening = opening

    def request(self) -> AttachConsoleOpen:
        """How to attach now."""
        return self._opening

    def resized(self, size: ConsoleSize) -> None:
        """The window has another size, also for the next connection."""
        self._opening.size.CopyFrom(size)

    @property
    def writes(self) -> bool:
        """The daemon takes input, or will when there is a connection again."""
        return self._opening.mode == ConsoleMode.CONSOLE_MODE_WRITER

    def read_only(self) -> None:
        """From now on."""
        self._opening.mode = ConsoleMode.CONSOLE_MODE_READER
        self._opening.takeover = False

    def accept(self, message: AttachConsoleResponse) -> Iterable[AttachConsoleResponse]:
        """The message; its place is noted."""
        kind = message.WhichOneof("message")
        if kind == "opened":
            self.opened = True
            # Whoever has taken over since keeps the place.
            self._opening.takeover = False
            self._opening.offset = message.opened.offset
            self._opening.log_id = message.opened.log_id
        elif kind == "data":
            self._opening.offset = message.data.offset + len(message.data.data)
        elif kind == "expired":
            self._opening.offset = message.expired.end
        elif kind == "writer_lost":
            self.read_only()
        self.ended = self.ended or kind in ("moved", "closed")
        return (message,)


class ConsoleAttachment:
    """One attachment over all its connections. Iterated in one thread, used from any."""

    def __init__(
        self,
        attach: Callable[[Iterator[Any]], Any],
        opening: AttachConsoleOpen,
        *,
        backoff: Backoff,
        on_retry: OnRetry | None,
    ) -> None:
        """`attach` is the stub's AttachConsole."""
        self._attach = attach
        self._subscription = AttachSubscription(opening)
        self._retries = Retries(backoff, self._broken)
        self._on_retry = on_retry
        self._outgoing: Outgoing | None = None
        self._stream: Any = None
        self._detached = False

    @property
    def connected(self) -> bool:
        """There is a connection: what is sent now is not lost at once."""
        return self._outgoing is not None

    def __iter__(self) -> Iterator[AttachConsoleResponse]:
        while not self._subscription.ended and not self._detached:
            try:
                yield from follow(self._call, self._subscription, self._retries)
            except RpcError as error:
                if self._detached:
                    return
                if error.reason != "WRITER_PRESENT" or not self._subscription.opened:
                    raise
                self._subscription.read_only()
            finally:
                self._hang_up()

    @property
    def detached(self) -> bool:
        """Somebody here has ended it."""
        return self._detached

    def send(self, data: bytes, *, timeout_s: float | None = None) -> bool:
        """Types bytes; waits while the guest takes none: for ever, or False is given.

        They are dropped where we only read, and while there is no connection.
        """
        return self._send(AttachConsoleRequest(input=data), timeout_s)

    def resize(self, columns: int, rows: int) -> None:
        """The window has this size now."""
        size = ConsoleSize(columns=columns, rows=rows)
        self._subscription.resized(size)
        self._send(AttachConsoleRequest(resize=size))

    def detach(self) -> None:
        """Ends the attachment after what was sent; the iteration ends soon after."""
        self._detached = True
        self._subscription.ended = not self.connected or self._subscription.ended
        self._hang_up()
        stream = self._stream
        if stream is not None:
            timer = threading.Timer(_CLOSE_S, stream.cancel)
            timer.daemon = True
            timer.start()

    def _broken(self, error: RpcError, pause_s: float) -> None:
        """The connection has broken and will be opened again, unless nobody wants it any more."""
        self._hang_up()
        if self._detached:
            raise error
        if self._on_retry is not None:
            self._on_retry(error, pause_s)

    def _call(self, opening: AttachConsoleOpen) -> Any:
        self._hang_up()
        outgoing = Outgoing(AttachConsoleRequest(open=opening))
        self._stream = self._attach(iter(outgoing))
        self._outgoing = outgoing
        return self._stream

    def _send(self, request: AttachConsoleRequest, timeout_s: float | None = None) -> bool:
        outgoing = self._outgoing
        if outgoing is None or not self._subscription.writes:
            return True
        return outgoing.add(request, timeout_s=timeout_s)

    def _hang_up(self) -> None:
        outgoing, self._outgoing = self._outgoing, None
        if outgoing is not None:
            outgoing.close()
