"""The first message of a client: `open`, and only once."""

from collections.abc import AsyncIterator
from typing import TypeVar

from virtrpc.v1 import console_pb2 as pb

from backends.errors import InvalidArgumentError

Request = TypeVar("Request", pb.AttachConsoleRequest, pb.TunnelConsoleRequest)


async def opening(requests: AsyncIterator[Request]) -> Request:
    """The first message, which has `open`."""
    first = await anext(requests, None)
    if first is None or not first.HasField("open"):
        raise _open_expected("the first message is not open")
    return first


def refuse_opening(request: pb.AttachConsoleRequest | pb.TunnelConsoleRequest) -> None:
    """Refuses `open` in a later message."""
    if request.HasField("open"):
        raise _open_expected("open comes first and once")


def _open_expected(message: str) -> InvalidArgumentError:
    return InvalidArgumentError(message, field="open", reason="OPEN_EXPECTED")
