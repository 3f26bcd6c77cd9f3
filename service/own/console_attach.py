"""ConsoleService.AttachConsole: any number read a serial port, one writes."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager

from virtrpc.v1 import console_pb2 as pb

from backends.console_log import ConsoleLog
from service.consoles.attachment import Attachment, Requests
from service.consoles.moves import Moves
from service.consoles.opening import opening
from service.consoles.output import ConsoleLogs, next_piece, refuse_past_end
from service.consoles.recording import Recording, Recordings
from service.consoles.watch import ConsoleWatch
from service.consoles.writing import Writer, Writers, cancelled
from service.dispatcher import Call
from service.errors import ShuttingDownError


class AttachVerbs:
    """Attachments to serial ports."""

    def __init__(
        self,
        *,
        logs: ConsoleLogs,
        watch: ConsoleWatch,
        writers: Writers,
        recordings: Recordings,
        moves: Moves,
        closing: Callable[[], bool],
    ) -> None:
        self._logs = logs
        self._watch = watch
        self._writers = writers
        self._recordings = recordings
        self._moves = moves
        self._closing = closing

    async def attach_console(
        self, requests: Requests, call: Call
    ) -> AsyncGenerator[pb.AttachConsoleResponse, None]:
        """See ConsoleService.AttachConsole."""
        asked = (await opening(requests)).open
        log = self._logs.of(asked.instance_id, asked.log_id)
        offset = log.end()
        if asked.HasField("offset"):
            offset = refuse_past_end(log, asked.offset, field="open.offset")
        with ExitStack() as held:
            changed = held.enter_context(self._watch.watching(log.path))
            writer = held.enter_context(self._writing(asked, call, changed))
            recording = held.enter_context(self._recording(asked, call))
            attachment = Attachment(requests, changed=changed, writer=writer, recording=recording)
            yield self._opened(asked, log, offset, writer, recording)
            async with _pumping(attachment):
                async for response in self._follow(attachment, asked, log, offset, changed):
                    yield response

    async def _follow(
        self,
        attachment: Attachment,
        asked: pb.AttachConsoleOpen,
        log: ConsoleLog,
        offset: int,
        changed: asyncio.Event,
    ) -> AsyncIterator[pb.AttachConsoleResponse]:
        while True:
            changed.clear()
            if self._closing():
                raise ShuttingDownError("the daemon stops", metadata={"next_offset": str(offset)})
            for notice in attachment.notices():
                yield notice
            piece = next_piece(log, offset)
            offset = piece.next_offset
            for response in attachment.output(piece):
                yield response
            if attachment.detached:
                yield _closed(pb.CONSOLE_CLOSE_REASON_DETACHED, "the client has detached")
                return
            reads_on = self._logs.reads_on(asked.instance_id, log, piece)
            if reads_on is None:
                moved = self._moves.of(asked.instance_id, offset=offset)
                reason = pb.CONSOLE_CLOSE_REASON_INSTANCE_DESTROYED
                yield (
                    _closed(reason, "the instance was destroyed")
                    if moved is None
                    else pb.AttachConsoleResponse(moved=moved)
                )
                return
            if not reads_on:
                await changed.wait()

    @contextmanager
    def _writing(
        self, asked: pb.AttachConsoleOpen, call: Call, changed: asyncio.Event
    ) -> Iterator[Writer | None]:
        if asked.mode != pb.CONSOLE_MODE_WRITER:
            yield None
            return
        writer = self._writers.claim(
            asked.instance_id, call.identity.name, takeover=asked.takeover, notify=changed.set
        )
        try:
            yield writer
        finally:
            self._writers.release(asked.instance_id, writer)

    @contextmanager
    def _recording(self, asked: pb.AttachConsoleOpen, call: Call) -> Iterator[Recording | None]:
        if not asked.record:
            yield None
            return
        size = asked.size if asked.HasField("size") else None
        recording = self._recordings.new(asked.instance_id, call.identity.name, size)
        try:
            yield recording
        finally:
            recording.close()

    def _opened(
        self,
        asked: pb.AttachConsoleOpen,
        log: ConsoleLog,
        offset: int,
        writer: Writer | None,
        recording: Recording | None,
    ) -> pb.AttachConsoleResponse:
        opened = pb.AttachConsoleOpened(
            writer=writer is not None,
            offset=offset,
            log_id=log.log_id,
            recording=recording.name if recording is not None else "",
            writer_identity=self._writers.identity(asked.instance_id),
        )
        return pb.AttachConsoleResponse(opened=opened)


@asynccontextmanager
async def _pumping(attachment: Attachment) -> AsyncIterator[None]:
    pump = asyncio.ensure_future(attachment.pump())
    try:
        yield
    finally:
        await cancelled(pump)


def _closed(reason: "pb.ConsoleCloseReason.ValueType", message: str) -> pb.AttachConsoleResponse:
    return pb.AttachConsoleResponse(closed=pb.ConsoleClosed(reason=reason, message=message))
