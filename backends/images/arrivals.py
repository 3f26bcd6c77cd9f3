"""The one way by which an image comes into the store, wherever its bytes come from.

fetch ──▶ verify ──▶ inspect ──▶ store
  │          │          │          │ its record is on disk: point of no return
  ╰──────────┴──────────┴── undo: thrown away
"""

import hmac
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from virtrpc.v1.image_pb2 import Image, ImageDeclaration, ImageOrigin

from backends.errors import ContractError
from backends.images.incoming import Digests, IncomingImage, telling_disk_errors
from backends.images.inspection import inspect_whole
from backends.images.refusals import checksum_mismatch, image_differs, no_room, too_large
from backends.images.store import ImageStore
from backends.work import Undo, Work

UNDO_ARRIVAL = "discard_image"
_READ_BYTES = 1 << 20
_FETCH_SHARE_PERCENT = 90
_SHA256 = "sha256"


@dataclass(frozen=True, kw_only=True)
class Arrival:
    """An image that is to come."""

    image_id: str
    declared: ImageDeclaration
    origin: "ImageOrigin.ValueType"
    source: str = ""
    """Where it comes from, for people; without secrets."""
    size_bytes: int = 0
    """Size of its file; 0: not known."""


class Arrivals:
    """Takes images into a store."""

    def __init__(self, store: ImageStore) -> None:
        self._store = store

    def blockers(self, arrival: Arrival) -> list[ContractError]:
        """What stands in the way, as far as it is known before the bytes come."""
        limits = self._store.policy.limits_of(arrival.declared)
        if arrival.size_bytes > limits.size_bytes:
            return [too_large("file", limits.size_bytes)]
        if arrival.size_bytes > self._store.usage().available_bytes:
            return [no_room()]
        return []

    def existing(self, arrival: Arrival, work: Work) -> Image | None:
        """The image where it is in the store already; None where the id is free.

        Reads its file where that is the only way to tell. Raises AlreadyExistsError where
        it is another one; without a declared checksum only another source or format tells.
        """
        if not self._store.exists(arrival.image_id):
            return None
        image = self.of_same_format(arrival)
        came_from = (arrival.origin, arrival.source)
        if arrival.declared.checksum:
            same = self._has_checksum(image, arrival.declared.checksum, work)
        else:
            same = bool(image.source) and (image.origin, image.source) == came_from
        if not same:
            raise image_differs(arrival.image_id)
        return image

    def of_same_format(self, arrival: Arrival) -> Image:
        """The image that has the id; raises AlreadyExistsError where it is surely another."""
        image = self._store.get(arrival.image_id)
        if image is None or image.damaged or image.format != arrival.declared.format:
            raise image_differs(arrival.image_id)
        return image

    def compare(self, image: Image, chunks: Iterable[bytes], work: Work) -> None:
        """Raises AlreadyExistsError where an image of the store has not these bytes."""
        digests = Digests(_SHA256)
        for chunk in chunks:
            work.checkpoint()
            digests.update(chunk)
        if not self._has_checksum(image, digests.checksum(_SHA256), work):
            raise image_differs(image.image_id)

    def describe(self, image: Image, declared: ImageDeclaration) -> Image:
        """Gives an image of the store the properties that were declared now."""
        image.properties.clear()
        image.properties.update(declared.properties)
        image.evictable = declared.evictable
        with telling_disk_errors():
            self._store.records.write(image)
        return image

    def take(self, arrival: Arrival, chunks: Iterable[bytes], work: Work) -> Image:
        """Takes an image whose id is free; `work` is ready. Blocks until it is in the store."""
        work.phase("fetch", percent=0)
        work.step("fetch", Undo(UNDO_ARRIVAL, {"operation_id": work.operation_id}))
        incoming = IncomingImage(self._store, work.operation_id)
        with incoming.writing() as file:
            digests = self._fetch(arrival, incoming, file, chunks, work)
            image = self._checked(arrival, file, digests, work)
        return self._put(image, incoming, work)

    def expect(self, work: Work) -> Path:
        """Where another program is to write the file of an image; `take_written` then takes it."""
        work.step("image", Undo(UNDO_ARRIVAL, {"operation_id": work.operation_id}))
        return IncomingImage(self._store, work.operation_id).place_to_write()

    def take_written(self, arrival: Arrival, work: Work) -> Image:
        """Takes an image that was written to where it was expected."""
        incoming = IncomingImage(self._store, work.operation_id)
        with incoming.written() as file:
            limit_bytes = self._store.policy.limits_of(arrival.declared).size_bytes
            if incoming.size_bytes > limit_bytes:
                raise too_large("file", limit_bytes)
            work.phase("verify", percent=_FETCH_SHARE_PERCENT)
            digests = _read(file, work, _SHA256)
            image = self._checked(arrival, file, digests, work)
        return self._put(image, incoming, work)

    def finished(self, image_id: str, work: Work) -> Image | None:
        """Ends an arrival that is past its point of no return, also after a crash.

        None where this operation has none.
        """
        if not work.operation_id:
            return None
        placed = IncomingImage(self._store, work.operation_id).place()
        if placed is None and self._store.records.arrived_by(image_id) == work.operation_id:
            return self._store.get(image_id)
        return placed

    def discard(self, operation_id: str) -> None:
        """Undo of an arrival: throws away what had come."""
        IncomingImage(self._store, operation_id).discard()

    def _put(self, image: Image, incoming: IncomingImage, work: Work) -> Image:
        """Makes what has come, and was checked, an image of the store."""
        image.size_bytes = incoming.size_bytes
        work.phase("store", percent=98)
        work.step("store")
        incoming.finish(image)
        work.commit()
        return self.finished(image.image_id, work) or image

    def _fetch(
        self,
        arrival: Arrival,
        incoming: IncomingImage,
        file: IO[bytes],
        chunks: Iterable[bytes],
        work: Work,
    ) -> Digests:
        limit_bytes = self._store.policy.limits_of(arrival.declared).size_bytes
        digests = Digests(_SHA256, arrival.declared.checksum.partition(":")[0])
        told_mib = -1
        for chunk in chunks:
            work.checkpoint()
            incoming.append(file, chunk, limit_bytes=limit_bytes)
            digests.update(chunk)
            if incoming.size_bytes >> 20 != told_mib:
                told_mib = incoming.size_bytes >> 20
                _tell(incoming.size_bytes, arrival.size_bytes, work)
        return digests

    def _checked(self, arrival: Arrival, file: IO[bytes], digests: Digests, work: Work) -> Image:
        """The facts of the bytes that came; raises where they may not be used."""
        declared = arrival.declared
        work.phase("verify", percent=92)
        if declared.checksum:
            found = digests.checksum(declared.checksum.partition(":")[0])
            if not hmac.compare_digest(found, declared.checksum):
                raise checksum_mismatch(declared.checksum, found)
        work.phase("inspect", percent=95)
        limits = self._store.policy.limits_of(declared)
        image = Image(
            image_id=arrival.image_id,
            format=declared.format,
            virtual_size_bytes=inspect_whole(file, declared.format, limits, work.checkpoint),
            checksum=digests.checksum(_SHA256),
            declared_checksum=declared.checksum,
            origin=arrival.origin,
            source=arrival.source,
            properties=declared.properties,
            evictable=declared.evictable,
        )
        image.created_at.GetCurrentTime()
        return image

    def _has_checksum(self, image: Image, checksum: str, work: Work) -> bool:
        if checksum in (image.checksum, image.declared_checksum):
            return True
        algorithm = checksum.partition(":")[0]
        if algorithm == _SHA256 and image.checksum:
            return False
        _, file = self._store.open(image.image_id)
        with file:
            return _read(file, work, algorithm).checksum(algorithm) == checksum


def _read(file: IO[bytes], work: Work, algorithm: str) -> Digests:
    """The digest of a whole file."""
    digests = Digests(algorithm)
    file.seek(0)
    while chunk := file.read(_READ_BYTES):
        work.checkpoint()
        digests.update(chunk)
    return digests


def _tell(come_bytes: int, size_bytes: int, work: Work) -> None:
    """Progress counts bytes; where their number is not known the share stays 0."""
    percent, of = 0, ""
    if size_bytes:
        share = come_bytes * _FETCH_SHARE_PERCENT // size_bytes
        percent, of = min(share, _FETCH_SHARE_PERCENT), f" of {size_bytes}"
    work.phase("fetch", percent=percent, message=f"{come_bytes}{of} bytes")
