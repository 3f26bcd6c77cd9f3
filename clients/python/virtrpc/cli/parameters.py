"""Types of arguments: sizes, pairs, cursors, enums of the contract, network interfaces."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Container
from typing import TYPE_CHECKING, Any

import click

from virtrpc.cli.words import prefix_length
from virtrpc.v1.event_pb2 import EventCursor

if TYPE_CHECKING:  # generic only in later releases of click
    ParamType = click.ParamType[Any]
    Choice = click.Choice[str]
else:
    from click import Choice, ParamType

# Of sizes and offsets; what the contract allows.
MOST = 2**63 - 1
# Ten thousand years (duration.proto).
MOST_SECONDS = 315_576_000_000
_POWERS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}


class Converted(ParamType):
    """A type made of a function that raises ValueError, with a sentence, for what it refuses."""

    def __init__(self, name: str, convert: Callable[[str], Any]) -> None:
        self.name = name
        self._convert = convert

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The value; a default that is converted already passes."""
        if not isinstance(value, str):
            return value
        try:
            return self._convert(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class EnumChoice(Choice):
    """The values of an enum by their words, e.g. "running"; `only` some of them."""

    def __init__(self, enum: Any, *, only: Container[int] | None = None) -> None:
        skip = prefix_length(enum)
        self._numbers = {
            name[skip:].lower().replace("_", "-"): number
            for name, number in enum.items()
            if number and (only is None or number in only)
        }
        super().__init__(sorted(self._numbers), case_sensitive=False)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The value's number."""
        return self._numbers[super().convert(value, param, ctx)]


class Seconds(click.FloatRange):
    """A length of time that a google.protobuf.Duration can hold."""

    name = "seconds"

    def __init__(self, *, min_open: bool = False) -> None:
        super().__init__(min=0, max=MOST_SECONDS, min_open=min_open)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The number; "nan" is within every range."""
        number = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"{value!r} is no length of time", param, ctx)
        return number


def size(text: str, *, unit: str) -> int:
    """A size in `unit` (one of "", K, M, G, T; powers of 1024), which is also its default.

    "512M", "2G", "2GiB", or a plain number of units. Raises ValueError for what is
    no size or no whole number of units.
    """
    match = re.fullmatch(r"(\d+)\s*([KMGT]?)(?:i?B)?", text, flags=re.IGNORECASE)
    if match is None:
        raise ValueError(f"{text!r} is not a size, e.g. 512M or 2G")
    given = match[2].upper() or unit
    whole, rest = divmod(int(match[1]) << 10 * _POWERS[given], 1 << 10 * _POWERS[unit])
    if rest:
        raise ValueError(f"{text!r} is not a whole number of {unit}iB")
    if whole > MOST:
        raise ValueError(f"{text!r} is more than there can be")
    return whole


def pair(text: str) -> tuple[str, str]:
    """ "key=value" as a tuple."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise ValueError(f"{text!r} is not key=value")
    return key, value


def cursor(text: str) -> EventCursor:
    """ "epoch:sequence" as a cursor."""
    epoch, colon, sequence = text.rpartition(":")
    if not colon or not epoch or not (sequence.isascii() and sequence.isdigit()):
        raise ValueError(f"{text!r} is not a cursor, epoch:sequence")
    if int(sequence) > MOST:
        raise ValueError(f"{text!r} is not a cursor: there is no such sequence")
    return EventCursor(epoch=epoch, sequence=int(sequence))


BYTES = Converted("bytes", lambda text: size(text, unit=""))
MEBIBYTES = Converted("size", lambda text: size(text, unit="M"))
GIBIBYTES = Converted("size", lambda text: size(text, unit="G"))
PAIR = Converted("key=value", pair)
CURSOR = Converted("epoch:sequence", cursor)
