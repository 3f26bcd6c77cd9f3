"""ConsoleService: the console log by offset, once or followed."""

from collections.abc import AsyncIterator, Callable

from virtrpc.v1 import console_pb2 as pb

from backends.console_log import ConsoleLog
from service.consoles.moves import Moves
from service.consoles.output import ConsoleLogs, Piece, happens, next_piece, refuse_past_end
from service.consoles.watch import ConsoleWatch
from service.dispatcher import Call
from service.errors import ShuttingDownError

_DEFAULT_READ_BYTES = 64 * 1024
_DEFAULT_HEARTBEAT_S = 10.0


class ConsoleVerbs:
    """Reads of console logs."""

    def __init__(
        self,
        *,
        logs: ConsoleLogs,
        watch: ConsoleWatch,
        moves: Moves,
        closing: Callable[[], bool],
    ) -> None:
        self._logs = logs
        self._watch = watch
        self._moves = moves
        self._closing = closing

    async def get_console_output(
        self, request: pb.GetConsoleOutputRequest, _call: Call
    ) -> pb.GetConsoleOutputResponse:
        """See ConsoleService.GetConsoleOutput."""
        log = self._logs.of(request.instance_id, request.log_id)
        max_bytes = request.max_bytes or _DEFAULT_READ_BYTES
        start = _start(log, request, default=max(log.end() - max_bytes, 0))
        chunk = log.read(start, max_bytes=max_bytes)
        return pb.GetConsoleOutputResponse(
            data=chunk.data,
            offset=chunk.offset,
            next_offset=chunk.next_offset,
            end_offset=log.end(),
            retained=[pb.ConsoleRange(begin=e.start, end=e.end) for e in log.extents()],
            expired_bytes=chunk.expired,
            log_id=log.log_id,
        )

    async def stream_console_output(
        self, request: pb.StreamConsoleOutputRequest, _call: Call
    ) -> AsyncIterator[pb.StreamConsoleOutputResponse]:
        """See ConsoleService.StreamConsoleOutput."""
        log = self._logs.of(request.instance_id, request.log_id)
        offset = _start(log, request, default=log.end())
        until = None if request.follow else log.end()
        heartbeat_s = _DEFAULT_HEARTBEAT_S
        if request.HasField("heartbeat"):
            heartbeat_s = request.heartbeat.ToNanoseconds() / 1e9
        with self._watch.watching(log.path) as changed:
            yield _heartbeat(log, log_id=log.log_id)
            while until is None or offset < until:
                changed.clear()
                self._refuse_when_closing(offset)
                piece = next_piece(log, offset, until)
                offset = piece.next_offset
                for response in _responses(piece):
                    yield response
                if until is not None:
                    if not piece:
                        return
                    continue
                reads_on = self._logs.reads_on(request.instance_id, log, piece)
                if reads_on is None:
                    moved = self._moves.of(request.instance_id, offset=offset)
                    if moved is not None:
                        yield pb.StreamConsoleOutputResponse(moved=moved)
                    return
                if not reads_on and not await happens(changed, heartbeat_s):
                    yield _heartbeat(log)

    def _refuse_when_closing(self, offset: int) -> None:
        if self._closing():
            raise ShuttingDownError("the daemon stops", metadata={"next_offset": str(offset)})


def _start(
    log: ConsoleLog,
    request: pb.GetConsoleOutputRequest | pb.StreamConsoleOutputRequest,
    *,
    default: int,
) -> int:
    if request.WhichOneof("start") == "tail_bytes":
        return max(log.end() - request.tail_bytes, 0)
    if request.WhichOneof("start") != "offset":
        return default
    return refuse_past_end(log, request.offset)


def _responses(piece: Piece) -> list[pb.StreamConsoleOutputResponse]:
    responses = []
    if piece.expired is not None:
        responses.append(pb.StreamConsoleOutputResponse(expired=piece.expired))
    if piece.data is not None:
        responses.append(pb.StreamConsoleOutputResponse(data=piece.data))
    return responses


def _heartbeat(log: ConsoleLog, *, log_id: str = "") -> pb.StreamConsoleOutputResponse:
    beat = pb.ConsoleHeartbeat(end_offset=log.end())
    return pb.StreamConsoleOutputResponse(heartbeat=beat, log_id=log_id)
