"""ConsoleService: the console log by offset, once or followed."""

import asyncio
from collections.abc import AsyncIterator, Callable

from virtrpc.v1 import console_pb2 as pb

from backends.console_log import ConsoleLog
from backends.errors import InstanceNotFoundError, OutOfRangeError
from service.console_watch import ConsoleWatch
from service.dispatcher import Call
from service.errors import ShuttingDownError

_DEFAULT_READ_BYTES = 64 * 1024
_STREAM_READ_BYTES = 64 * 1024  # the cost of a stream is per message
_DEFAULT_HEARTBEAT_S = 10.0


class ConsoleVerbs:
    """Reads of console logs. The files are small and in the page cache: read in place."""

    def __init__(
        self,
        *,
        console_log: Callable[[str], ConsoleLog],
        watch: ConsoleWatch,
        exists: Callable[[str], bool],
        closing: Callable[[], bool],
    ) -> None:
        self._console_log = console_log
        self._watch = watch
        self._exists = exists
        self._closing = closing

    async def get_console_output(
        self, request: pb.GetConsoleOutputRequest, _call: Call
    ) -> pb.GetConsoleOutputResponse:
        """See ConsoleService.GetConsoleOutput."""
        log = self._log(request.instance_id, request.log_id)
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
        log = self._log(request.instance_id, request.log_id)
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
                _require_whole(log, offset)
                responses = _read(log, offset, until)
                for response in responses:
                    offset = _next_offset(response)
                    yield response
                if responses:
                    continue
                if until is not None or self._ended(request.instance_id, log):
                    return
                if not await _wait(changed, heartbeat_s):
                    yield _heartbeat(log)

    def _log(self, instance_id: str, log_id: str) -> ConsoleLog:
        log = self._console_log(instance_id)
        if log_id and log_id.lower() != log.log_id:
            raise OutOfRangeError(
                "the instance has another console log",
                reason="LOG_CHANGED",
                field="log_id",
                metadata={"log_id": log.log_id},
            )
        return log

    def _refuse_when_closing(self, offset: int) -> None:
        if self._closing():
            raise ShuttingDownError("the daemon stops", metadata={"next_offset": str(offset)})

    def _ended(self, instance_id: str, log: ConsoleLog) -> bool:
        """True when nothing more will come."""
        try:
            return not self._exists(instance_id) or self._console_log(instance_id).path != log.path
        except InstanceNotFoundError:
            return True


def _start(
    log: ConsoleLog,
    request: pb.GetConsoleOutputRequest | pb.StreamConsoleOutputRequest,
    *,
    default: int,
) -> int:
    end = log.end()
    if request.WhichOneof("start") == "tail_bytes":
        return max(end - request.tail_bytes, 0)
    if request.WhichOneof("start") != "offset":
        return default
    if request.offset > end:
        raise OutOfRangeError(
            "offset is past the end of the console log",
            reason="OFFSET_PAST_END",
            field="offset",
            metadata={"end_offset": str(end), "log_id": log.log_id},
        )
    return request.offset


def _require_whole(log: ConsoleLog, offset: int) -> None:
    """Raises OutOfRangeError where somebody has cut the log short, as virtlogd does."""
    if offset > log.end():
        raise OutOfRangeError(
            "the console log was cut short: begin anew",
            reason="LOG_CHANGED",
            metadata={"end_offset": str(log.end()), "log_id": log.log_id},
        )


def _read(log: ConsoleLog, offset: int, until: int | None) -> list[pb.StreamConsoleOutputResponse]:
    """What there is from an offset on: an expired range, bytes, both or neither."""
    most = _STREAM_READ_BYTES if until is None else min(_STREAM_READ_BYTES, until - offset)
    chunk = log.read(offset, max_bytes=most)
    begin = chunk.offset if until is None else min(chunk.offset, until)
    responses = []
    if chunk.expired:
        gone = pb.ConsoleRange(begin=offset, end=begin)
        responses.append(pb.StreamConsoleOutputResponse(expired=gone))
    if chunk.data and chunk.offset == begin:
        data = pb.ConsoleData(offset=chunk.offset, data=chunk.data)
        responses.append(pb.StreamConsoleOutputResponse(data=data))
    return responses


def _heartbeat(log: ConsoleLog, *, log_id: str = "") -> pb.StreamConsoleOutputResponse:
    beat = pb.ConsoleHeartbeat(end_offset=log.end())
    return pb.StreamConsoleOutputResponse(heartbeat=beat, log_id=log_id)


def _next_offset(response: pb.StreamConsoleOutputResponse) -> int:
    if response.HasField("expired"):
        return response.expired.end
    return response.data.offset + len(response.data.data)


async def _wait(changed: asyncio.Event, timeout_s: float) -> bool:
    try:
        async with asyncio.timeout(timeout_s):
            await changed.wait()
    except TimeoutError:
        return False
    return True
