"""What clients of the web console say in text: the first message, and a window's size.

Anybody can connect and send anything, so all that is not ours is a ValueError here.
"""

import json
from dataclasses import dataclass
from typing import Any

from virtrpc.v1 import console_pb2 as pb

_MOST_OFFSET = (1 << 63) - 1
_MOST_CHARACTERS = 10_000  # of a window's side, as console.proto


@dataclass(frozen=True)
class Hello:
    """The first message."""

    page: str
    """"vnc" or "serial"."""
    token: str
    offset: int | None
    log_id: str
    takeover: bool
    watch: bool


def hello(text: str) -> Hello:
    """A first message; raises ValueError."""
    said = _members(text)
    offset = said.get("offset")
    return Hello(
        page=_word(said.get("page")),
        token=_word(said.get("token")),
        offset=None if offset is None else _number(offset, least=0, most=_MOST_OFFSET),
        log_id=_word(said.get("log_id") or ""),
        takeover=said.get("takeover") is True,
        watch=said.get("watch") is True,
    )


def window(text: str) -> pb.ConsoleSize:
    """The size that a later message tells; raises ValueError."""
    size = _members(text).get("resize")
    if not isinstance(size, list) or len(size) != 2:
        raise ValueError("no size of a window")
    columns, rows = (_number(side, least=1, most=_MOST_CHARACTERS) for side in size)
    return pb.ConsoleSize(columns=columns, rows=rows)


def _members(text: str) -> dict[str, Any]:
    try:
        said = json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(said, dict):
        raise ValueError("no object")
    return said


def _word(value: object) -> str:
    """ASCII, as all our words are: escapes of JSON can make texts that no encoding takes."""
    if not isinstance(value, str) or not value.isascii():
        raise ValueError("no word of ours")
    return value


def _number(value: object, *, least: int, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ValueError("no number in its bounds")
    return value
