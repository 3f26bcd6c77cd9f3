"""Page tokens: where a listing stood, bound to the request that began it."""

import hashlib

from google.protobuf.message import Message
from virtrpc.v1.types_pb2 import PageRequest

from backends.errors import InvalidArgumentError

MAX_PAGE = 1000


def page_size(page: PageRequest) -> int:
    """Most items of a page."""
    return page.page_size or MAX_PAGE


def page_token(request: Message, last_id: str) -> str:
    """Token of the page that follows an item."""
    return f"{_digest(request)}.{last_id}"


def last_id(request: Message, page: PageRequest) -> str:
    """Id of the last item of the page before; "" on the first page.

    Raises InvalidArgumentError where the token is of another listing.
    """
    if not page.page_token:
        return ""
    digest, _, last = page.page_token.partition(".")
    if digest != _digest(request):
        raise InvalidArgumentError(
            "not a page token of this listing",
            field="page.page_token",
            reason="INVALID_PAGE_TOKEN",
        )
    return last


def _digest(request: Message) -> str:
    """Of everything that a token is bound to: all of the request but the page."""
    bound = type(request)()
    bound.CopyFrom(request)
    bound.ClearField("page")
    return hashlib.sha256(bound.SerializeToString(deterministic=True)).hexdigest()[:16]
