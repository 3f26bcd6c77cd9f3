"""An image on its way: hidden from everybody until it is whole, checked and on disk.

    .incoming/OPERATION         its bytes
    .incoming/OPERATION.json    its record: from here on it is only moved

The names are those of operations, so that the undo of an operation knows what
to throw away.
"""

import errno
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from google.protobuf import json_format
from virtrpc.v1.image_pb2 import Image

from backends.durable_files import sync_folder, write_durably
from backends.errors import ContractError, HypervisorError
from backends.images import qemu_img
from backends.images.inspection import open_regular
from backends.images.records import to_text
from backends.images.refusals import image_differs, no_room, too_large
from backends.images.store import ImageStore

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def telling_disk_errors() -> Iterator[None]:
    """Errors of the store's filesystem become errors of the contract."""
    try:
        yield
    except OSError as error:
        raise _disk_failed(error) from error


class Digests:
    """Digests of bytes as they pass."""

    def __init__(self, *algorithms: str) -> None:
        self._hashes = {name: hashlib.new(name) for name in algorithms if name}

    def update(self, data: bytes) -> None:
        """The next bytes."""
        for digest in self._hashes.values():
            digest.update(data)

    def checksum(self, algorithm: str) -> str:
        """E.g. "sha256:0123…"."""
        return f"{algorithm}:{self._hashes[algorithm].hexdigest()}"


class IncomingImage:
    """One image on its way."""

    def __init__(self, store: ImageStore, operation_id: str) -> None:
        self.size_bytes = 0
        self._operation_id = operation_id
        self._store = store
        self._path = store.incoming_folder / operation_id
        self._record = self._path.with_name(f"{operation_id}.json")

    def place_to_write(self) -> Path:
        """Where its file is to be; other accounts that know its name get there."""
        with telling_disk_errors():
            self._path.parent.mkdir(exist_ok=True)
            self._path.parent.chmod(0o711)
        return self._path

    @contextmanager
    def writing(self) -> Iterator[IO[bytes]]:
        """Its file, new; on disk when the block has ended well."""
        path = self.place_to_write()
        with telling_disk_errors():
            file = path.open("w+b", buffering=0)
        with file:
            yield file
            with telling_disk_errors():
                os.fsync(file.fileno())

    @contextmanager
    def written(self) -> Iterator[IO[bytes]]:
        """Its file, which another program has written; it is the daemon's, and on disk."""
        with telling_disk_errors():
            qemu_img.take_output(self._path)
            file = open_regular(self._path)
        with file:
            with telling_disk_errors():
                os.fsync(file.fileno())
            self.size_bytes = os.fstat(file.fileno()).st_size
            yield file

    def append(self, file: IO[bytes], data: bytes, *, limit_bytes: int) -> None:
        """The next bytes; raises NoRoomError above the limit and where the disk is full."""
        self.size_bytes += len(data)
        if self.size_bytes > limit_bytes:
            raise too_large("file", limit_bytes)
        with telling_disk_errors():
            view = memoryview(data)
            while view:
                view = view[file.write(view) :]

    def finish(self, image: Image) -> None:
        """It is whole: QEMU may read it, and its record is on disk."""
        with telling_disk_errors():
            self._path.chmod(0o644)
            write_durably(self._record, to_text(image))

    def place(self) -> Image | None:
        """Makes it an image of the store; None where it was not finished.

        May be repeated: after a crash it goes on where it was. Raises AlreadyExistsError
        where another file has its name by now; it is thrown away then.
        """
        try:
            image = json_format.Parse(self._record.read_text(encoding="utf-8"), Image())
        except FileNotFoundError:
            return None
        with telling_disk_errors():
            self._link(image, self._store.path_for(image.image_id, image.format))
            self._store.records.write(image, arrived_by=self._operation_id)
            self.discard()
            sync_folder(self._store.folder)
        return image

    def discard(self) -> None:
        """Throws away whatever there is of it."""
        for path in (self._path, self._record, self._record.with_name(f"{self._record.name}.new")):
            path.unlink(missing_ok=True)

    def _link(self, image: Image, path: Path) -> None:
        if not self._path.exists():
            return  # this far it had come before a crash
        try:
            path.hardlink_to(self._path)
        except FileExistsError:
            if not path.samefile(self._path):
                self.discard()
                raise image_differs(image.image_id) from None


def _disk_failed(error: OSError) -> ContractError:
    if error.errno in _NO_ROOM:
        return no_room()
    return HypervisorError(f"the image store cannot be written: {error.strerror}")
