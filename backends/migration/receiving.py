"""Disks on their way in: hidden until they are whole, checked and on disk.

    INSTANCE/.arriving-DISK-…   its bytes so far ─▶ under its name, when digest and format are right

A raw disk is held against formats too that its guest may have written on it: none of our
tools guesses, but somebody else's might.
"""

import contextlib
import glob
import hashlib
import hmac
import os
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from virtrpc.v1 import migration_pb2 as pb
from virtrpc.v1.spec_pb2 import DiskFormat

from backends.durable_files import sync_folder
from backends.errors import (
    ContractError,
    DamagedError,
    HypervisorError,
    InvalidArgumentError,
    NoRoomError,
    WrongStateError,
)
from backends.images import qemu_img
from backends.images.inspection import inspect_whole
from backends.images.policy import SizeLimits
from backends.images.refusals import Finding, ImageRefusedError
from backends.migration.book import DESTINATION, Migration, MigrationBook, Phase
from backends.migration.cold_driver import ColdDriver
from backends.migration.parcels import is_sent

_PREFIX = ".arriving-"
_READ_BYTES = 1 << 20
_MOST = SizeLimits(size_bytes=1 << 47, virtual_size_bytes=1 << 46)


class Receptions:
    """Where disks arrive."""

    def __init__(self, book: MigrationBook, driver: ColdDriver) -> None:
        self._book = book
        self._driver = driver

    def open(self, request: pb.ReceiveDiskOpen) -> "Reception":
        """Begins to receive a disk; raises WrongStateError where none is expected."""
        migration, disk = self._expected(request)
        return Reception(request, migration, disk, book=self._book, driver=self._driver)

    def _expected(self, request: pb.ReceiveDiskOpen) -> tuple[Migration, pb.MigrationDisk]:
        migration = self._book.find(request.migration_id)
        if migration is None or migration.instance_id != request.instance_id.lower():
            raise not_prepared()
        if migration.role != DESTINATION or not migration.cold or not _expects(migration):
            raise not_prepared()
        for disk in migration.data.disks:
            if disk.device_name == request.disk.device_name and is_sent(disk):
                if disk.format == request.disk.format:
                    return migration, disk
                break
        raise not_prepared()


class Reception:
    """One disk on its way here. Callable from any thread."""

    def __init__(
        self,
        request: pb.ReceiveDiskOpen,
        migration: Migration,
        disk: pb.MigrationDisk,
        *,
        book: MigrationBook,
        driver: ColdDriver,
    ) -> None:
        self.received_bytes = 0
        self._migration = migration
        self._disk = disk
        self._book = book
        self._driver = driver
        self._size = request.file_bytes
        self._lock = threading.Lock()
        folder = driver.place_of(disk).parent
        self._path = folder / f"{_PREFIX}{disk.device_name}-{uuid.uuid4().hex}"
        with telling_disk_errors():
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            self._descriptor = os.open(self._path, flags, 0o600)
            os.ftruncate(self._descriptor, self._size)

    def write(self, piece: pb.ReceiveDiskPiece) -> None:
        """The next piece, wherever it belongs."""
        if piece.offset + len(piece.data) > self._size:
            why = "the piece goes beyond the end that `open` said"
            raise InvalidArgumentError(why, field="piece.offset")
        if not _expects(self._migration):
            raise not_prepared()
        data, offset = memoryview(piece.data), piece.offset
        with self._lock, telling_disk_errors():
            while data:
                count = os.pwrite(self._descriptor, data, offset)
                data, offset = data[count:], offset + count
        self.received_bytes += len(piece.data)

    def finish(self, sha256: str, checkpoint: Callable[[], None]) -> None:
        """It is whole: it is checked, and is where the instance will look for it."""
        with self._lock:
            self._finish(sha256, checkpoint)

    def _finish(self, sha256: str, checkpoint: Callable[[], None]) -> None:
        with telling_disk_errors():
            os.fsync(self._descriptor)
        if not hmac.compare_digest(self._digest(checkpoint), sha256):
            raise DamagedError(
                "the bytes do not have the digest: send it again", reason="CHECKSUM_MISMATCH"
            )
        with os.fdopen(os.dup(self._descriptor), "rb") as file:
            _inspect(file, self._disk.format, checkpoint)
        with self._book.change(self._migration, durable=False):
            if not _expects(self._migration):
                raise not_prepared()
            self._driver.take(self._migration.data, self._disk, self._path)
        sync_folder(self._path.parent)

    def close(self) -> None:
        """Nothing of it is left but what was put in its place."""
        with self._lock, contextlib.suppress(FileNotFoundError):
            os.close(self._descriptor)
            self._path.unlink()

    def _digest(self, checkpoint: Callable[[], None]) -> str:
        digest, offset = hashlib.sha256(), 0
        while data := os.pread(self._descriptor, _READ_BYTES, offset):
            checkpoint()
            digest.update(data)
            offset += len(data)
        return digest.hexdigest()


def missing(migration: Migration, driver: ColdDriver) -> list[str]:
    """Names of the disks that have not arrived."""
    sent = (disk for disk in migration.data.disks if is_sent(disk))
    return [disk.device_name for disk in sent if not driver.place_of(disk).exists()]


def remove_partial(folder: Path) -> None:
    """Removes what was on its way when the daemon died."""
    # Unlike Path.glob it bears folders that go meanwhile.
    for name in glob.iglob(f"{glob.escape(str(folder))}/*/{_PREFIX}*"):  # noqa: PTH207
        Path(name).unlink(missing_ok=True)


def not_prepared() -> ContractError:
    """That nothing of a migration is here that the call could go on with."""
    return WrongStateError("nothing of this migration is prepared here", reason="NOT_PREPARED")


def _expects(migration: Migration) -> bool:
    return migration.data.prepared and migration.phase == Phase.MIGRATION_PHASE_PREPARING


def _inspect(
    file: IO[bytes],
    declared: "DiskFormat.ValueType",
    checkpoint: Callable[[], None],
) -> None:
    try:
        inspect_whole(file, declared, _MOST, checkpoint)
    except ImageRefusedError as error:
        encrypted = error.metadata["finding"] == Finding.ENCRYPTED
        if not (encrypted and declared == DiskFormat.DISK_FORMAT_RAW):
            raise  # what a guest encrypts on its own disk is its own business


@contextlib.contextmanager
def telling_disk_errors() -> Iterator[None]:
    """Errors of the filesystem become errors of the contract."""
    try:
        yield
    except OSError as error:
        if error.errno in qemu_img.FULL:
            raise NoRoomError("the filesystem of the instances is full") from error
        raise HypervisorError(f"the disk cannot be written: {error.strerror}") from error
