"""The image store: files that root disks, kernels and ramdisks come from.

An image's id is the name of its file without the suffix; the suffix says its
format: `.qcow2`, `.raw`, or none for kernels and ramdisks. A format is never
guessed from the content. What has come through the service also has a record
(backends.images.records) and, while it comes, a place below `.incoming`; files
that people put here are images as well, as long as an inspection finds nothing.
"""

import os
import re
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO

from virtrpc.v1.image_pb2 import Image, ImageStoreUsage
from virtrpc.v1.spec_pb2 import DiskFormat

from backends.errors import ContractError, InvalidArgumentError
from backends.images.inspection import inspect, open_regular
from backends.images.policy import ImagePolicy, SizeLimits
from backends.images.records import ImageRecords
from backends.images.refusals import image_busy, image_damaged, image_in_use, image_not_found

_SUFFIXES = {
    ".qcow2": DiskFormat.DISK_FORMAT_QCOW2,
    ".raw": DiskFormat.DISK_FORMAT_RAW,
    "": DiskFormat.DISK_FORMAT_UNSPECIFIED,
}
_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,254}")
_LONGEST_NAME_BYTES = 255
_MOST_INSPECTIONS = 4096


def _nothing() -> None:
    """Nobody counts the uses of an image that is in no store."""


@dataclass(frozen=True, eq=False)
class StoredImage:
    """An image of the store, inspected. It is not deleted for as long as this lives."""

    image_id: str
    path: Path
    format: "DiskFormat.ValueType"
    virtual_size_bytes: int
    mark_used: Callable[[], None] = _nothing
    """Notes that something is made from it now."""
    properties: dict[str, str] = field(default_factory=dict)


class _Pin:
    """Keeps an image from being deleted for as long as it lives."""


@dataclass(frozen=True)
class _Located:
    """Where an image is, and what is on record of it."""

    path: Path
    format: "DiskFormat.ValueType"
    record: Image | None


class ImageStore:
    """Images in one folder. Callable from any thread."""

    def __init__(self, folder: Path, policy: ImagePolicy | None = None) -> None:
        self.folder = folder
        self.policy = policy or ImagePolicy()
        self.records = ImageRecords(folder / ".records")
        self._limits = SizeLimits(1 << 63, self.policy.max_virtual_size_bytes)
        self._inspected: dict[object, int] = {}
        self._lock = threading.Lock()
        self._readers: dict[str, weakref.WeakSet[StoredImage | _Pin]] = {}
        self._claimed: set[str] = set()

    @property
    def incoming_folder(self) -> Path:
        """Where files are that are on their way into the store."""
        return self.folder / ".incoming"

    def find(self, image_id: str, *, field: str) -> StoredImage:
        """The image of an id, which `field` of the request names.

        Raises NotFoundError, BusyError while it is being deleted, and InvalidArgumentError,
        WrongStateError or NoRoomError for one that may not be used.
        """
        located = self._locate(image_id)
        if located is None:
            raise image_not_found(image_id, field=field)
        try:
            with _opened(located) as file:
                virtual_size_bytes = self._inspect(file, located)
        except OSError as error:
            raise _unusable(image_id, field, error, damaged=located.record is not None) from error
        except ContractError as error:
            error.field = error.field or field
            raise
        properties = dict(located.record.properties) if located.record is not None else {}
        mark_used = partial(self.records.mark_used, image_id)
        found = StoredImage(
            image_id, located.path, located.format, virtual_size_bytes, mark_used, properties
        )
        self._pin(image_id, found)
        return found

    def find_disk(self, image_id: str, *, field: str) -> StoredImage:
        """As `find`, for an image that a disk is made from."""
        image = self.find(image_id, field=field)
        if image.format == DiskFormat.DISK_FORMAT_UNSPECIFIED:
            raise InvalidArgumentError(
                f"image {image_id} is not a disk (its file is neither .qcow2 nor .raw)",
                field=field,
                reason="IMAGE_NOT_A_DISK",
            )
        return image

    def exists(self, image_id: str) -> bool:
        """Whether the id is taken, by whatever."""
        return self._locate(image_id) is not None

    def get(self, image_id: str) -> Image | None:
        """The facts of an image, `used_by_instance_ids` excepted; None where there is none."""
        located = self._locate(image_id)
        return None if located is None else self._facts(image_id, located)

    def images(self) -> list[Image]:
        """The facts of all images, ordered by id."""
        facts = (self.get(image_id) for image_id in sorted(self._ids()))
        return [image for image in facts if image is not None]

    def open(self, image_id: str) -> tuple[Image, IO[bytes]]:
        """An image's facts and its file, which a later deletion does not disturb.

        Raises NotFoundError, or WrongStateError where the file is damaged.
        """
        located = self._locate(image_id)
        image = None if located is None else self._facts(image_id, located)
        if located is None or image is None:
            raise image_not_found(image_id)
        try:
            return image, _opened(located)
        except OSError as error:
            raise image_damaged(image_id) from error

    def path_for(self, image_id: str, disk_format: "DiskFormat.ValueType") -> Path:
        """Where the file of an image that comes is put."""
        suffix = next(s for s, known in _SUFFIXES.items() if known == disk_format)
        return self.folder / f"{image_id}{suffix}"

    def paths(self) -> dict[Path, str]:
        """Ids of all images by the path of their file."""
        located = ((image_id, self._locate(image_id)) for image_id in self._ids())
        return {where.path: image_id for image_id, where in located if where is not None}

    def usage(self) -> ImageStoreUsage:
        """Room in the store."""
        filesystem = os.statvfs(self.folder)
        return ImageStoreUsage(
            total_bytes=filesystem.f_blocks * filesystem.f_frsize,
            available_bytes=filesystem.f_bavail * filesystem.f_frsize,
            images_bytes=sum(image.size_bytes for image in self.images() if not image.damaged),
        )

    @contextmanager
    def reading(self, image_id: str) -> Iterator[None]:
        """The image is not deleted inside; raises BusyError where it is about to be."""
        pin = _Pin()
        self._pin(image_id, pin)
        try:
            yield
        finally:
            with self._lock:
                self._readers[image_id].discard(pin)

    @contextmanager
    def claimed(self, image_id: str) -> Iterator[None]:
        """Nobody begins to read the image inside; raises where somebody does already."""
        with self._lock:
            if image_id in self._claimed:
                raise image_busy(image_id)
            if self._readers.get(image_id):
                raise image_in_use(image_id, ())
            self._claimed.add(image_id)
        try:
            yield
        finally:
            with self._lock:
                self._claimed.discard(image_id)

    def remove(self, image_id: str) -> int:
        """Deletes an image; gives the room that came free, in bytes. Nothing where there is none.

        Call it with the image claimed.
        """
        located = self._locate(image_id)
        freed = 0
        if located is not None:
            try:
                freed = located.path.lstat().st_blocks * 512
                located.path.unlink()
            except FileNotFoundError:
                freed = 0
        self.records.remove(image_id)
        return freed

    def _pin(self, image_id: str, pin: StoredImage | _Pin) -> None:
        with self._lock:
            if image_id in self._claimed:
                raise image_busy(image_id)
            self._readers = {i: readers for i, readers in self._readers.items() if readers}
            self._readers.setdefault(image_id, weakref.WeakSet()).add(pin)

    def _locate(self, image_id: str) -> _Located | None:
        if not _ID.fullmatch(image_id):
            return None
        record = None
        if len(self.records.path_of(image_id).name) <= _LONGEST_NAME_BYTES:
            record = self.records.read(image_id)
        if record is not None:
            return _Located(self.path_for(image_id, record.format), record.format, record)
        for suffix, disk_format in _SUFFIXES.items():
            name = f"{image_id}{suffix}"
            if not suffix and _id_of(name) != image_id:
                continue  # the file of another image
            path = self.folder / name
            if len(name) <= _LONGEST_NAME_BYTES and os.path.lexists(path) and not path.is_dir():
                return _Located(path, disk_format, None)
        return None

    def _ids(self) -> set[str]:
        """Ids of what may be an image; damaged ones included."""
        with os.scandir(self.folder) as entries:
            files = {_id_of(entry.name) for entry in entries}
        return {name for name in files if _ID.fullmatch(name)} | set(self.records.ids())

    def _facts(self, image_id: str, located: _Located) -> Image | None:
        image = Image()
        if located.record is not None:
            image.CopyFrom(located.record)
            image.damaged = not _is_as_recorded(located)
        elif not self._describe(image, image_id, located):
            return None
        used_ns = self.records.last_used_ns(image_id)
        if used_ns is not None:
            image.last_used_at.FromNanoseconds(used_ns)
        return image

    def _describe(self, image: Image, image_id: str, located: _Located) -> bool:
        """The facts of a file that somebody put here; False where it is refused."""
        try:
            with _opened(located) as file:
                image.virtual_size_bytes = self._inspect(file, located)
                status = os.fstat(file.fileno())
        except (OSError, ContractError):
            return False
        image.image_id, image.size_bytes = image_id, status.st_size
        image.format = located.format or DiskFormat.DISK_FORMAT_RAW
        image.created_at.FromNanoseconds(status.st_mtime_ns)
        return True

    def _inspect(self, file: IO[bytes], located: _Located) -> int:
        """Virtual size of a file that is safe; each is inspected once for as long as it is so."""
        status = os.fstat(file.fileno())
        if located.format == DiskFormat.DISK_FORMAT_UNSPECIFIED:
            return status.st_size  # a kernel or ramdisk: QEMU reads it as bytes
        key = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns,
               status.st_ctime_ns, located.format)  # fmt: skip
        known = self._inspected.get(key)
        if known is None:
            known = inspect(file, located.format, self._limits)
            if len(self._inspected) >= _MOST_INSPECTIONS:
                self._inspected.clear()
            self._inspected[key] = known
        return known


def _id_of(name: str) -> str:
    """Id of the image that a file of the folder is."""
    stem, dot, suffix = name.rpartition(".")
    return stem if dot + suffix in _SUFFIXES and dot else name


def _opened(located: _Located) -> IO[bytes]:
    """Opens an image; raises OSError, also where it is not what is on record."""
    file = open_regular(located.path)
    record = located.record
    if record is not None and os.fstat(file.fileno()).st_size != record.size_bytes:
        file.close()
        raise OSError("not of its recorded size")
    return file


def _is_as_recorded(located: _Located) -> bool:
    try:
        _opened(located).close()
    except OSError:
        return False
    return True


def _unusable(image_id: str, field: str, error: OSError, *, damaged: bool) -> ContractError:
    if damaged:
        return image_damaged(image_id, field=field)
    return InvalidArgumentError(
        f"image {image_id} cannot be opened ({error.strerror or error})",
        field=field,
        reason="IMAGE_UNUSABLE",
    )
