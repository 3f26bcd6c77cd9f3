"""`image upload`: an image goes from here into the host's store."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from typing import IO, Any

import click

from virtrpc.cli.bytes_passing import bytes_passing
from virtrpc.cli.command import Verb, mutation_options
from virtrpc.cli.image_declaration import declaration, declaration_options
from virtrpc.cli.image_view import summary
from virtrpc.cli.long_running import CHECKED
from virtrpc.cli.session import Session, pass_session
from virtrpc.cli.structure import structure
from virtrpc.errors import ServiceError
from virtrpc.v1 import image_pb2 as messages

CHUNK_BYTES = 256 * 1024


@click.command("upload", cls=Verb)
@click.argument("image_id", metavar="IMAGE")
@click.argument("file", type=click.File("rb"))
@declaration_options
@click.option(
    "--compute-checksum",
    "computed",
    is_flag=True,
    help="Read FILE first and declare its SHA-256: nothing is sent that is there already.",
)
@mutation_options
@pass_session
def upload(
    session: Session,
    /,
    *,
    image_id: str,
    file: IO[bytes],
    computed: bool,
    request_id: str,
    validate_only: bool,
    **declared: Any,
) -> None:
    """Takes an image from FILE; '-' is standard input. One that breaks off leaves nothing."""
    if file.isatty():
        raise click.UsageError("give the image on standard input: … < FILE")
    header = messages.UploadImageHeader(
        image_id=image_id,
        declared=declaration(**declared),
        size_bytes=_size_bytes(file),
        request_id=request_id,
        validate_only=validate_only,
    )
    if computed:
        header.declared.checksum = _checksum(file)
    with bytes_passing(session, f"uploading {image_id}", total=header.size_bytes) as passed:
        outgoing = Outgoing(header, file, passed)
        response = outgoing.sent(session.client.images.UploadImage)
    session.output.document(
        {"already_there": False, **structure(response)},
        lambda: f"{image_id}: {CHECKED if validate_only else _words(response)}",
    )


class Outgoing:
    """The messages of an upload; what cannot be read is the caller's error, not the service's."""

    def __init__(
        self, header: messages.UploadImageHeader, file: IO[bytes], passed: Callable[[int], None]
    ) -> None:
        self._header = header
        self._file = file
        self._passed = passed
        self._error: OSError | None = None

    def sent(self, call: Callable[[Any], messages.UploadImageResponse]) -> Any:
        """The response when all is sent, or is not wanted."""
        try:
            return call(iter(self))
        except ServiceError:
            if self._error is not None:
                raise click.FileError(self._file.name, self._error.strerror) from self._error
            raise

    def __iter__(self) -> Iterator[messages.UploadImageRequest]:
        yield messages.UploadImageRequest(header=self._header)
        while not self._header.validate_only and (chunk := self._read()):
            self._passed(len(chunk))
            yield messages.UploadImageRequest(chunk=chunk)

    def _read(self) -> bytes:
        try:
            return self._file.read(CHUNK_BYTES)
        except OSError as error:
            self._error = error
            raise


def _size_bytes(file: IO[bytes]) -> int:
    """Size of a regular file; 0: it is not known."""
    found = os.fstat(file.fileno())
    return found.st_size if stat.S_ISREG(found.st_mode) else 0


def _checksum(file: IO[bytes]) -> str:
    if not file.seekable():
        raise click.UsageError("--compute-checksum needs a file that can be read twice")
    digest = hashlib.sha256()
    while chunk := file.read(CHUNK_BYTES):
        digest.update(chunk)
    file.seek(0)
    return f"sha256:{digest.hexdigest()}"


def _words(response: messages.UploadImageResponse) -> str:
    there = "was there already, " if response.already_there else ""
    return there + summary(response.image)
