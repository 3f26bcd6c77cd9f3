"""Listings that come in pages, as one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

Response = TypeVar("Response")


def pages(call: Callable[[Any], Response], request: Any) -> Iterator[Response]:
    """Every page of a listing, each fetched when asked for.

    `call` is the stub's blocking method, `request` one with a `page`; it is
    changed: its `page.page_token` goes from page to page.
    """
    while True:
        response: Any = call(request)
        yield response
        if not response.next_page_token:
            return
        request.page.page_token = response.next_page_token
