"""What an image that goes into the store is declared to be: options that pull and upload share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from virtrpc.cli.parameters import BYTES, PAIR, EnumChoice
from virtrpc.v1.image_pb2 import ImageDeclaration
from virtrpc.v1.spec_pb2 import DiskFormat

Decorated = TypeVar("Decorated", bound=Callable[..., Any])
_OPTIONS = (
    click.option(
        "--format",
        "format",
        type=EnumChoice(DiskFormat),
        required=True,
        help="Of its bytes; kernels, ramdisks and ISO files are raw.",
    ),
    click.option(
        "--checksum",
        default="",
        metavar="sha256:HEX|sha512:HEX",
        help="Refuse any other bytes.",
    ),
    click.option(
        "--property", "properties", type=PAIR, multiple=True, help="As OpenStack's. Repeatable."
    ),
    click.option(
        "--evictable", is_flag=True, help="May be deleted when unused: its bytes are elsewhere too."
    ),
    click.option(
        "--max-size",
        "max_size_bytes",
        type=BYTES,
        help="Of its file, e.g. 2G.  [default: the daemon's]",
    ),
    click.option(
        "--max-virtual-size",
        "max_virtual_size_bytes",
        type=BYTES,
        help="Of the disk in it.  [default: the daemon's]",
    ),
)


def declaration_options(command: Decorated) -> Decorated:
    """The options that `declaration` is made of."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def declaration(
    *,
    format: DiskFormat.ValueType,  # noqa: A002 - the option's name
    checksum: str,
    properties: Sequence[tuple[str, str]],
    evictable: bool,
    max_size_bytes: int | None,
    max_virtual_size_bytes: int | None,
) -> ImageDeclaration:
    """The declaration that the options make."""
    return ImageDeclaration(
        format=format,
        checksum=checksum,
        properties=dict(properties),
        evictable=evictable,
        max_size_bytes=max_size_bytes or 0,
        max_virtual_size_bytes=max_virtual_size_bytes or 0,
    )
