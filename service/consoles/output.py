"""A console log read on and on: what has expired, what is there, and where it ends."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from virtrpc.v1 import console_pb2 as pb

from backends.console_log import ConsoleLog
from backends.errors import InstanceNotFoundError, OutOfRangeError
from service.consoles.moves import Moves

_READ_BYTES = 64 * 1024  # the cost of a stream is per message


@dataclass(frozen=True)
class Piece:
    """What comes next of a log: bytes that have expired, then bytes that are there, or neither."""

    next_offset: int
    expired: pb.ConsoleRange | None = None
    data: pb.ConsoleData | None = None

    def __bool__(self) -> bool:
        return self.expired is not None or self.data is not None

    @property
    def whole(self) -> bool:
        """It is as large as one can be: more may be there already."""
        return self.data is None or len(self.data.data) >= _READ_BYTES


class ConsoleLogs:
    """The logs of all instances. Event loop only; the files are small and in the page cache."""

    def __init__(
        self,
        *,
        console_log: Callable[[str], ConsoleLog],
        exists: Callable[[str], bool],
        moves: Moves,
    ) -> None:
        """`exists`: whether there is an instance of an id, as far as is known."""
        self._console_log = console_log
        self._exists = exists
        self._moves = moves

    def of(self, instance_id: str, log_id: str = "") -> ConsoleLog:
        """The log of an instance; raises OutOfRangeError where it is not the one of that id."""
        if not self._exists(instance_id) and self._moves.of(instance_id) is not None:
            raise InstanceNotFoundError(instance_id)  # where storage is shared its log is seen yet
        log = self._console_log(instance_id)
        if log_id and log_id.lower() != log.log_id:
            raise OutOfRangeError(
                "the instance has another console log",
                reason="LOG_CHANGED",
                field="log_id",
                metadata={"log_id": log.log_id},
            )
        return log

    def reads_on(self, instance_id: str, log: ConsoleLog, piece: Piece) -> bool | None:
        """Whether to read on at once after a piece; None: nothing more will come.

        Else it is waited for the log to change: what comes meanwhile comes in one piece.
        """
        if piece and piece.whole:
            return True
        if not self._ended(instance_id, log):
            return False
        return True if piece else None

    def _ended(self, instance_id: str, log: ConsoleLog) -> bool:
        try:
            return not self._exists(instance_id) or self._console_log(instance_id).path != log.path
        except InstanceNotFoundError:
            return True


def refuse_past_end(log: ConsoleLog, offset: int, *, field: str = "offset") -> int:
    """The offset; raises OutOfRangeError where nothing was ever written there."""
    end = log.end()
    if offset > end:
        raise OutOfRangeError(
            "offset is past the end of the console log",
            reason="OFFSET_PAST_END",
            field=field,
            metadata={"end_offset": str(end), "log_id": log.log_id},
        )
    return offset


def next_piece(log: ConsoleLog, offset: int, until: int | None = None) -> Piece:
    """What there is from an offset on, up to another one.

    Raises OutOfRangeError where somebody has cut the log short, as virtlogd does.
    """
    if not log.path.exists():  # it is made at the machine's start, and goes with it
        return Piece(offset)
    if offset > log.end():
        raise OutOfRangeError(
            "the console log was cut short: begin anew",
            reason="LOG_CHANGED",
            metadata={"end_offset": str(log.end()), "log_id": log.log_id},
        )
    most = _READ_BYTES if until is None else min(_READ_BYTES, until - offset)
    chunk = log.read(offset, max_bytes=most)
    begin = chunk.offset if until is None else min(chunk.offset, until)
    expired = pb.ConsoleRange(begin=offset, end=begin) if chunk.expired else None
    if not chunk.data or chunk.offset != begin:
        return Piece(begin, expired)
    return Piece(chunk.next_offset, expired, pb.ConsoleData(offset=chunk.offset, data=chunk.data))


async def happens(event: asyncio.Event, timeout_s: float) -> bool:
    """Waits for an event; False where it does not come in time."""
    try:
        async with asyncio.timeout(timeout_s):
            await event.wait()
    except TimeoutError:
        return False
    return True
