"""The chunks of an upload on their way from the RPC to the worker thread that wants them."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import wait

from virtrpc.v1.image_pb2 import UploadImageHeader, UploadImageRequest

from backends.errors import CancelledError, InvalidArgumentError, TimedOutError
from backends.work import Work

_STALL_S = 60.0
_POLL_S = 0.25


class UploadBrokenOffError(CancelledError):
    """The caller has gone before the last chunk came."""

    reason = "UPLOAD_BROKEN_OFF"


class UploadStream:
    """Chunks, read on the event loop when a worker thread asks for one, and no earlier."""

    def __init__(
        self,
        requests: AsyncIterator[UploadImageRequest],
        *,
        still_there: Callable[[], Awaitable[bool]],
    ) -> None:
        """`still_there` is asked at the end whether the caller is, or has broken off."""
        self._requests = requests
        self._still_there = still_there
        self._loop = asyncio.get_running_loop()
        self._broken = False

    async def header(self) -> UploadImageHeader:
        """The first message."""
        first = await anext(self._requests, None)
        if first is None or first.WhichOneof("part") != "header":
            raise InvalidArgumentError("the first message is not a header", field="header")
        return first.header

    def chunks(self, work: Work) -> Iterator[bytes]:
        """The chunks, in order; for one worker thread, not the event loop."""
        while chunk := self._next(work):
            yield chunk

    def break_off(self) -> None:
        """The RPC has ended: no more will come."""
        self._broken = True

    def _next(self, work: Work) -> bytes:
        coming = asyncio.run_coroutine_threadsafe(self._receive(), self._loop)
        try:
            while not wait([coming], timeout=_POLL_S).done:
                work.checkpoint()
                self._refuse_broken()
        except BaseException:
            coming.cancel()
            raise
        return coming.result()

    async def _receive(self) -> bytes:
        """The next chunk; empty after the last one."""
        try:
            async with asyncio.timeout(_STALL_S):
                request = await anext(self._requests, None)
        except TimeoutError:
            raise TimedOutError(
                f"nothing came for {_STALL_S:.0f} s", reason="UPLOAD_STALLED"
            ) from None
        if request is None:
            self._broken = self._broken or not await self._still_there()
        self._refuse_broken()
        if request is None:
            return b""
        if request.WhichOneof("part") != "chunk":
            raise InvalidArgumentError("a header comes first and once", field="header")
        return request.chunk

    def _refuse_broken(self) -> None:
        if self._broken:
            raise UploadBrokenOffError("the caller has gone before the last chunk came")


def no_more(_work: Work) -> Iterator[bytes]:
    """After a restart nobody sends the rest: what was not whole has been rolled back."""
    raise UploadBrokenOffError("the daemon was restarted before the last chunk came")
