"""Disks on their way out: read without their holes, digested, no faster than is allowed.

What is based on an image that the destination has goes without it, and without the name of
the file that it is based on here: the destination gives it its own.
"""

import hashlib
import os
import threading
from collections.abc import Callable, Iterator

from virtrpc.v1 import migration_pb2 as pb

from backends.migration.checks import COPY
from backends.migration.cold_driver import Parcel

_PIECE_BYTES = 1 << 20
_ZEROS = bytes(_PIECE_BYTES)


def is_sent(disk: pb.MigrationDisk) -> bool:
    """Whether a prepared destination expects the bytes of a disk."""
    return disk.storage == COPY and bool(disk.destination_source) and not disk.volume_id


def goes_without_base(data: pb.MigrationData, disk: pb.MigrationDisk) -> bool:
    """Whether the destination has the image that a disk is an overlay of."""
    return bool(disk.base_image_id) and disk.base_image_id in data.destination.base_image_ids


class Sending:
    """One disk being sent; `requests` is read by one thread."""

    def __init__(
        self,
        parcel: Parcel,
        data: pb.MigrationData,
        *,
        bytes_per_s: int,
        passed: Callable[[int], None],
    ) -> None:
        """`passed` is told where in the file it is; `bytes_per_s` 0: as fast as can be."""
        self.sent_bytes = 0
        self._parcel = parcel
        self._data = data
        self._bytes_per_s = bytes_per_s
        self._passed = passed
        self._stopped = threading.Event()

    def stop(self) -> None:
        """No more is read."""
        self._stopped.set()

    def requests(self) -> Iterator[pb.ReceiveDiskRequest]:
        """The messages of the stream, as they are wanted."""
        digest = hashlib.sha256()
        with self._parcel.path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            yield self._open(size)
            for offset, length, data in _parts(file.fileno(), size, self._parcel.head):
                if data is None:
                    _digest_zeros(digest, length)
                else:
                    digest.update(data)
                    yield pb.ReceiveDiskRequest(piece=pb.ReceiveDiskPiece(offset=offset, data=data))
                    self._wait(len(data))
                self._passed(offset + length)
        yield pb.ReceiveDiskRequest(finish=pb.ReceiveDiskFinish(sha256=digest.hexdigest()))

    def _open(self, size: int) -> pb.ReceiveDiskRequest:
        return pb.ReceiveDiskRequest(
            open=pb.ReceiveDiskOpen(
                instance_id=self._data.instance_id,
                migration_id=self._data.migration_id,
                disk=self._parcel.disk,
                file_bytes=size,
            )
        )

    def _wait(self, count: int) -> None:
        """Not faster than is allowed, and no longer than is wanted."""
        self.sent_bytes += count
        pause_s = count / self._bytes_per_s if self._bytes_per_s else 0.0
        if self._stopped.wait(pause_s) if pause_s else self._stopped.is_set():
            raise InterruptedError("nobody wants the rest")


def _parts(descriptor: int, size: int, head: bytes) -> Iterator[tuple[int, int, bytes | None]]:
    """Offset, length and bytes of all parts, in order; None: they are zeros."""
    offset = 0
    while offset < size:
        begin = _next_data(descriptor, offset, size)
        if begin > offset:
            yield offset, begin - offset, None
            offset = begin
            continue
        end = min(offset + _PIECE_BYTES, os.lseek(descriptor, offset, os.SEEK_HOLE))
        data = os.pread(descriptor, end - offset, offset)
        if not data:
            raise OSError("the file has become shorter")
        if offset < len(head):
            data = head[offset:][: len(data)] + data[max(len(head) - offset, 0) :]
        yield offset, len(data), None if data == _ZEROS[: len(data)] else data
        offset += len(data)


def _next_data(descriptor: int, offset: int, size: int) -> int:
    try:
        return os.lseek(descriptor, offset, os.SEEK_DATA)
    except OSError:
        return size  # ENXIO: nothing but a hole up to the end


def _digest_zeros(digest: "hashlib._Hash", length: int) -> None:
    for _ in range(length // _PIECE_BYTES):
        digest.update(_ZEROS)
    digest.update(_ZEROS[: length % _PIECE_BYTES])
