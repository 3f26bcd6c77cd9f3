"""Why an image is not taken, found, given or deleted: the errors of ImageService."""

from collections.abc import Collection
from enum import StrEnum

from backends.errors import (
    AlreadyExistsError,
    BusyError,
    ContractError,
    InvalidArgumentError,
    NoRoomError,
    NotFoundError,
    PermissionRefusedError,
    UnreachableError,
    WrongStateError,
)

_MOST_NAMED = 16


class Finding(StrEnum):
    """What an inspection found wrong with an image."""

    FORMAT_MISMATCH = "FORMAT_MISMATCH"
    BACKING_FILE = "BACKING_FILE"
    DATA_FILE = "DATA_FILE"
    ENCRYPTED = "ENCRYPTED"
    TRUNCATED = "TRUNCATED"
    UNKNOWN_FEATURE = "UNKNOWN_FEATURE"
    MALFORMED = "MALFORMED"


_SENTENCES = {
    Finding.FORMAT_MISMATCH: "its bytes are not of the declared format",
    Finding.BACKING_FILE: "it names a backing file",
    Finding.DATA_FILE: "it names an external data file",
    Finding.ENCRYPTED: "it is encrypted",
    Finding.TRUNCATED: "it refers to bytes beyond its end",
    Finding.UNKNOWN_FEATURE: "it has a feature or version that is not known",
    Finding.MALFORMED: "its header makes no sense",
}


class ImageRefusedError(WrongStateError):
    """An inspection found that no tool may open the image."""

    reason = "IMAGE_REFUSED"

    def __init__(self, finding: Finding) -> None:
        super().__init__(
            f"the image is refused: {_SENTENCES[finding]}", metadata={"finding": finding.value}
        )


def too_large(what: str, limit_bytes: int) -> ContractError:
    """`what` is "file" or "disk"."""
    return NoRoomError(
        f"the image's {what} is larger than {limit_bytes} bytes",
        reason="IMAGE_TOO_LARGE",
        metadata={"limit_bytes": str(limit_bytes)},
    )


def no_room() -> ContractError:
    """The store's filesystem cannot hold it."""
    return NoRoomError("the image store is full")


def checksum_mismatch(declared: str, found: str) -> ContractError:
    """The bytes that came are not those declared."""
    return WrongStateError(
        "the image's bytes do not have the declared checksum: get it anew",
        reason="CHECKSUM_MISMATCH",
        metadata={"declared": declared, "found": found},
    )


def image_differs(image_id: str) -> ContractError:
    """The id is taken by another image."""
    return AlreadyExistsError(
        f"image {image_id} is in the store with other bytes or another format",
        reason="IMAGE_DIFFERS",
        metadata={"image_id": image_id},
    )


def image_exists(image_id: str) -> ContractError:
    """The id of an image that is to be made is taken."""
    return AlreadyExistsError(
        f"image {image_id} is in the store already",
        reason="IMAGE_EXISTS",
        field="image_id",
        metadata={"image_id": image_id},
    )


def image_not_found(image_id: str, *, field: str = "image_id") -> ContractError:
    """The store has no such image."""
    return NotFoundError(
        f"image {image_id} is not in this host's store",
        reason="IMAGE_NOT_FOUND",
        field=field,
        metadata={"image_id": image_id},
    )


def image_damaged(image_id: str, *, field: str = "image_id") -> ContractError:
    """Its file is not what it was when it came."""
    return WrongStateError(
        f"the file of image {image_id} is missing or has changed: delete it and get it anew",
        reason="IMAGE_DAMAGED",
        field=field,
        metadata={"image_id": image_id},
    )


def image_in_use(image_id: str, instance_ids: Collection[str]) -> ContractError:
    """Disks are based on it; with no instance: an operation reads it."""
    who = f"{len(instance_ids)} instances" if instance_ids else "an operation"
    return WrongStateError(
        f"image {image_id} is in use by {who}",
        reason="IMAGE_IN_USE",
        metadata={"instance_ids": ",".join(sorted(instance_ids)[:_MOST_NAMED])},
    )


def image_busy(image_id: str) -> ContractError:
    """It is about to be deleted."""
    return BusyError(
        f"image {image_id} is being deleted", reason="IMAGE_BUSY", metadata={"image_id": image_id}
    )


def source_not_allowed(why: str, *, field: str) -> ContractError:
    """The configuration does not allow to read from there."""
    return InvalidArgumentError(why, reason="SOURCE_NOT_ALLOWED", field=field)


def source_not_found(why: str, *, field: str) -> ContractError:
    """There is no such file."""
    return NotFoundError(why, reason="SOURCE_NOT_FOUND", field=field)


def source_denied(why: str, *, field: str) -> ContractError:
    """The file or server refuses us."""
    return PermissionRefusedError(why, reason="SOURCE_DENIED", field=field)


def source_unreachable(why: str) -> ContractError:
    """It does not answer, fails or breaks off."""
    return UnreachableError(why, reason="SOURCE_UNREACHABLE")
