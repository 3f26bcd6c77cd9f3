"""`image download`: an image comes from the host's store.

What has come is kept beside the file under a name with the image's checksum; a
download that broke off goes on there. The file has its name when it is whole.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import click
import grpc

from virtrpc.cli.bytes_passing import bytes_passing
from virtrpc.cli.command import Verb
from virtrpc.cli.image_listing import found
from virtrpc.cli.image_view import summary
from virtrpc.cli.naming import image_argument
from virtrpc.cli.session import Session, pass_session
from virtrpc.cli.structure import structure
from virtrpc.errors import made
from virtrpc.v1.image_pb2 import Image
from virtrpc.v1.types_pb2 import Error

READ_BYTES = 1024 * 1024


@click.command("download", cls=Verb)
@image_argument
@click.argument("target", metavar="FILE")
@click.option("--force", is_flag=True, help="Replace FILE.")
@click.option(
    "--offset",
    type=click.IntRange(min=0),
    default=0,
    metavar="N",
    help="Begin at this byte of the image; with '-' only.",
)
@pass_session
def download(session: Session, /, *, image_id: str, target: str, force: bool, offset: int) -> None:
    """Writes an image to FILE, '-' is standard output; goes on where it broke off."""
    if offset and target != "-":
        raise click.UsageError("--offset is for '-': a file goes on by itself")
    if target != "-" and Path(target).exists() and not force:
        raise click.UsageError(f"{target} exists: --force replaces it")
    image = found(session, image_id)
    if target == "-":
        _to_pipe(session, image, offset)
        session.note(f"{image_id}: {summary(image)}")
    else:
        _to_file(session, image, Path(target))
        document = {**structure(image), "file": target}
        session.output.document(document, lambda: f"{image_id}: {summary(image)} in {target}")


def _to_pipe(session: Session, image: Image, offset: int) -> None:
    digest = hashlib.sha256()
    _receive(session, image, sys.stdout.buffer, offset=offset, digest=digest)
    sys.stdout.buffer.flush()
    # Of what came before the offset nothing is known.
    if not offset and not _is_whole(image, digest):
        raise made(_damaged(image))


def _to_file(session: Session, image: Image, target: Path) -> None:
    part = target.with_name(f"{target.name}.{_short(image.checksum)}part")
    with _told(part), part.open("a+b" if image.checksum else "w+b") as file:
        digest = hashlib.sha256()
        file.seek(0)
        while data := file.read(READ_BYTES):
            digest.update(data)
        _receive(session, image, file, offset=file.tell(), digest=digest)
    with _told(target):
        if _is_whole(image, digest):
            part.replace(target)
            return
        part.unlink()
    raise made(_damaged(image))


def _short(checksum: str) -> str:
    digest = checksum.partition(":")[2]
    return f"{digest[:12]}." if digest else ""


def _receive(session: Session, image: Image, file: IO[bytes], *, offset: int, digest: Any) -> None:
    """Writes what is missing, and adds it to the digest."""
    what = f"downloading {image.image_id}"
    with bytes_passing(session, what, total=image.size_bytes, passed=offset) as passed:
        for message in session.client.download_image(
            image.image_id,
            offset=offset,
            expected_checksum=image.checksum,
            on_retry=session.note_retry,
        ):
            file.write(message.chunk.data)
            digest.update(message.chunk.data)
            passed(len(message.chunk.data))


def _is_whole(image: Image, digest: Any) -> bool:
    """Images that were put into the store by hand have no checksum."""
    return image.checksum in ("", f"sha256:{digest.hexdigest()}")


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Says which file cannot be written, and why."""
    try:
        yield
    except OSError as error:
        raise click.FileError(str(path), error.strerror) from error


def _damaged(image: Image) -> Error:
    return Error(
        code=grpc.StatusCode.DATA_LOSS.value[0],
        reason="CHECKSUM_MISMATCH",
        message=f"what came of image {image.image_id} has another checksum than {image.checksum}",
    )
