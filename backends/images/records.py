"""What the store knows of its images beside their bytes: a small file for each.

    .records/ID.json     the image as ImageService shows it
    .records/ID.used     empty; its time of change is when the image was last used

Images that people put into the folder themselves have none, and need none.
"""

import contextlib
import json
from pathlib import Path

import structlog
from google.protobuf import json_format
from virtrpc.v1.image_pb2 import Image

from backends.durable_files import write_durably

_ARRIVED_BY = "_arrived_by"  # beside the fields of the message
log = structlog.get_logger()


def to_text(image: Image, *, arrived_by: str = "") -> str:
    """A record's text."""
    fields = json_format.MessageToDict(image, preserving_proto_field_name=True)
    if arrived_by:
        fields[_ARRIVED_BY] = arrived_by
    return json.dumps(fields, indent=2) + "\n"


class ImageRecords:
    """Records by image id."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path_of(self, image_id: str) -> Path:
        """The file of a record, whether or not it exists."""
        return self.folder / f"{image_id}.json"

    def ids(self) -> list[str]:
        """Ids of all images that have a record."""
        return [path.name.removesuffix(".json") for path in self.folder.glob("*.json")]

    def read(self, image_id: str) -> Image | None:
        """The record; None where there is none that can be read."""
        try:
            text = self.path_of(image_id).read_text(encoding="utf-8")
            return json_format.Parse(text, Image(), ignore_unknown_fields=True)
        except FileNotFoundError:
            return None
        except (OSError, json_format.ParseError, UnicodeDecodeError) as error:
            log.error("image record cannot be read", image_id=image_id, error=str(error))
            return None

    def write(self, image: Image, *, arrived_by: str = "") -> None:
        """Replaces the record; raises OSError. `arrived_by` is the operation that it came by."""
        self.folder.mkdir(mode=0o700, exist_ok=True)
        write_durably(self.path_of(image.image_id), to_text(image, arrived_by=arrived_by))

    def arrived_by(self, image_id: str) -> str:
        """The operation that an image came by; empty where it was changed since."""
        try:
            record = json.loads(self.path_of(image_id).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return ""
        return str(record.get(_ARRIVED_BY, ""))

    def remove(self, image_id: str) -> None:
        """Forgets the image."""
        self.path_of(image_id).unlink(missing_ok=True)
        self._used(image_id).unlink(missing_ok=True)

    def mark_used(self, image_id: str) -> None:
        """Notes that an image is used now, where it has a record: others do not age."""
        with contextlib.suppress(OSError):
            if self.path_of(image_id).exists():
                self._used(image_id).touch(mode=0o600)

    def last_used_ns(self, image_id: str) -> int | None:
        """When it was last noted as used, in ns since the epoch; None: never."""
        return _changed_ns(self._used(image_id))

    def written_ns(self, image_id: str) -> int | None:
        """When the record was last written; None: it has none."""
        return _changed_ns(self.path_of(image_id))

    def _used(self, image_id: str) -> Path:
        return self.folder / f"{image_id}.used"


def _changed_ns(path: Path) -> int | None:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return None
