"""MigrationService.ReceiveDisk: the bytes of a disk on their way from the RPC to its file.

The next message is read when the last one is written: who sends waits for this host's disk.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import TypeVar

from virtrpc.v1 import migration_pb2 as pb

from backends.errors import CancelledError, InvalidArgumentError
from backends.migration.receiving import Reception, Receptions
from service.dispatcher import Call
from service.errors import OverloadedError, ShuttingDownError
from service.pools import Pools

_MOST = 16  # each occupies a worker thread now and then
T = TypeVar("T")


class DiskArrivals:
    """The stream; what becomes of the bytes is the backend's."""

    def __init__(
        self, receptions: Receptions, *, pools: Pools, closing: Callable[[], bool]
    ) -> None:
        self._receptions = receptions
        self._pools = pools
        self._closing = closing
        self._arriving = 0

    async def receive_disk(
        self, requests: AsyncIterator[pb.ReceiveDiskRequest], _call: Call
    ) -> pb.ReceiveDiskResponse:
        """See MigrationService.ReceiveDisk."""
        if self._arriving >= _MOST:
            raise OverloadedError(
                f"{_MOST} disks are arriving already",
                metadata={"class": "RECEIVE_DISK", "limit": str(_MOST)},
            )
        self._arriving += 1
        try:
            return await self._receive(requests)
        finally:
            self._arriving -= 1

    async def _receive(
        self, requests: AsyncIterator[pb.ReceiveDiskRequest]
    ) -> pb.ReceiveDiskResponse:
        first = await anext(requests, None)
        if first is None or first.WhichOneof("message") != "open":
            raise _open_expected()
        reception = await self._blocking(self._receptions.open, first.open)
        gone = asyncio.Event()
        try:
            await self._fill(reception, requests, gone)
            return pb.ReceiveDiskResponse(received_bytes=reception.received_bytes)
        finally:
            gone.set()
            # Beside the caller's going: a thread may still be at work on the file.
            await asyncio.shield(self._blocking(reception.close))

    async def _fill(
        self,
        reception: Reception,
        requests: AsyncIterator[pb.ReceiveDiskRequest],
        gone: asyncio.Event,
    ) -> None:
        """To the end of the stream, which is a `finish`."""

        def checkpoint() -> None:
            if gone.is_set() or self._closing():
                raise CancelledError("nobody waits for the disk any more")

        async for request in requests:
            if self._closing():
                raise ShuttingDownError("the daemon stops: send the disk again")
            kind = request.WhichOneof("message")
            if kind == "open":
                raise _open_expected()
            if kind == "finish":
                await self._blocking(reception.finish, request.finish.sha256, checkpoint)
                return
            await self._blocking(reception.write, request.piece)
        raise InvalidArgumentError("the stream ended before `finish`", field="finish")

    async def _blocking(self, work: Callable[..., T], *arguments: object) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pools.jobs, work, *arguments)


def _open_expected() -> InvalidArgumentError:
    why = "a stream begins with one `open`, and has no other"
    return InvalidArgumentError(why, reason="OPEN_EXPECTED", field="open")
