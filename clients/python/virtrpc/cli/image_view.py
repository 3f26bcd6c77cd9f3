"""Images for people."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rich.console import RenderableType
from rich.text import Text

from virtrpc.cli.tables import Column, listing, properties
from virtrpc.cli.words import byte_size, pairs, when, word
from virtrpc.v1.image_pb2 import Image, ImageOrigin, ImageStoreUsage
from virtrpc.v1.spec_pb2 import DiskFormat


def identifiers(images: Iterable[Image]) -> RenderableType:
    """An id a line."""
    return "\n".join(image.image_id for image in images)


def listed(images: Iterable[Image]) -> RenderableType:
    """A line for each image."""
    columns = (
        Column("ID", whole=True),
        Column("FORMAT", whole=True),
        Column("SIZE", right=True, whole=True),
        Column("DISK", right=True, whole=True),
        Column("USED BY", right=True, whole=True),
        Column("ORIGIN", wide=True),
        Column("CREATED", whole=True, wide=True),
        Column("NOTES"),
    )
    return listing(columns, [_row(image) for image in images])


def shown(image: Image) -> RenderableType:
    """Everything about an image."""
    return properties(_facts(image))


def summary(image: Image) -> str:
    """An image in a line."""
    words = (word(DiskFormat, image.format), byte_size(image.size_bytes), image.checksum)
    return ", ".join(filter(None, words))


def room(usage: ImageStoreUsage) -> str:
    """What the images take, and what is left for more."""
    return (
        f"{byte_size(usage.images_bytes)} of images;"
        f" {byte_size(usage.available_bytes)} of {byte_size(usage.total_bytes)} available"
    )


def _row(image: Image) -> tuple[str | Text, ...]:
    return (
        image.image_id,
        word(DiskFormat, image.format),
        byte_size(image.size_bytes),
        byte_size(image.virtual_size_bytes),
        str(len(image.used_by_instance_ids)),
        word(ImageOrigin, image.origin),
        when(image.created_at),
        ", ".join(_notes(image)),
    )


def _facts(image: Image) -> Iterator[tuple[str, str | Text]]:
    yield "id", image.image_id
    yield "format", word(DiskFormat, image.format)
    yield "size", byte_size(image.size_bytes)
    yield "disk", byte_size(image.virtual_size_bytes)
    yield "checksum", image.checksum
    yield "declared", image.declared_checksum
    yield "origin", word(ImageOrigin, image.origin)
    yield "source", image.source
    yield "properties", pairs(image.properties)
    yield "created", when(image.created_at)
    yield "last used", when(image.last_used_at)
    yield "used by", "\n".join(image.used_by_instance_ids)
    yield "notes", ", ".join(_notes(image))


def _notes(image: Image) -> Iterator[str]:
    if image.damaged:
        yield "damaged"
    if image.evictable:
        yield "evictable"
