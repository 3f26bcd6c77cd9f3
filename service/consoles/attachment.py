"""One client of a serial port: what it types goes to the guest, what the log gets comes back.

                    ╭─ input, resize ─▶ pump ─▶ writer, recording
    client ◀──────▶ │
                    ╰─ messages ◀─ notices (writer lost, input dropped) and the log

The pump is a task of the attachment; it ends with it. A guest that does not read
makes the pump wait, and with it the client's stream.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator

from virtrpc.v1 import console_pb2 as pb

from backends.errors import InvalidArgumentError
from service.consoles.opening import refuse_opening
from service.consoles.output import Piece
from service.consoles.recording import Recording
from service.consoles.writing import Writer

Requests = AsyncIterator[pb.AttachConsoleRequest]


class Attachment:
    """What has come of a client's messages, for its stream to tell. Event loop only."""

    def __init__(
        self,
        requests: Requests,
        *,
        changed: asyncio.Event,
        writer: Writer | None,
        recording: Recording | None,
    ) -> None:
        """`changed` is set when there is something to tell."""
        self.detached = False
        """The client has half-closed."""
        self.failure: BaseException | None = None
        """What its messages were refused for."""
        self._requests = requests
        self._changed = changed
        self._writer = writer
        self._recording = recording
        self._dropped_bytes = 0
        self._told_loss = False

    async def pump(self) -> None:
        """Takes the client's messages until it half-closes or sends what it must not."""
        try:
            async for request in self._requests:
                await self._take(request)
            self.detached = True
        except Exception as error:  # noqa: BLE001 - told by the stream, whose end it is
            self.failure = error
        finally:
            self._changed.set()

    def notices(self) -> Iterator[pb.AttachConsoleResponse]:
        """What the client has not been told yet; raises what its messages were refused for."""
        if self._dropped_bytes:
            dropped = pb.ConsoleInputDropped(dropped_bytes=self._dropped_bytes)
            self._dropped_bytes = 0
            yield pb.AttachConsoleResponse(input_dropped=dropped)
        lost_to = self._writer.lost_to if self._writer is not None else None
        if lost_to is not None and not self._told_loss:
            self._told_loss = True
            yield pb.AttachConsoleResponse(
                writer_lost=pb.ConsoleWriterLost(writer_identity=lost_to)
            )
        if self.failure is not None:
            raise self.failure

    def output(self, piece: Piece) -> Iterator[pb.AttachConsoleResponse]:
        """A piece of the log as messages."""
        if piece.expired is not None:
            yield pb.AttachConsoleResponse(expired=piece.expired)
        if piece.data is not None:
            if self._recording is not None:
                self._recording.shown(piece.data.data)
            yield pb.AttachConsoleResponse(data=piece.data)

    async def _take(self, request: pb.AttachConsoleRequest) -> None:
        refuse_opening(request)
        if self._writer is None:
            raise InvalidArgumentError("a reader does not write", reason="NOT_WRITER")
        if self._writer.lost_to is not None:
            return
        if request.HasField("resize"):
            if self._recording is not None:
                self._recording.resized(request.resize)
            return
        if self._recording is not None:
            self._recording.typed(request.input)
        dropped = await self._writer.write(request.input)
        if dropped:
            self._dropped_bytes += dropped
            self._changed.set()
