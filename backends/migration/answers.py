"""What a destination has to say of a migration, and what stays as its source knows it.

Its answer becomes the source's own record, so one that names another instance would move
that, and one that says how disks travel would decide what is removed here in the end.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from virtrpc.v1 import migration_pb2 as pb

from backends.errors import ContractError, PeerMismatchError, PeerUnreachableError

NOT_THERE = ("INSTANCE_NOT_FOUND", "NOT_SWITCHED", "MIGRATION_EXISTS")
"""Reasons by which a destination says that it does not have the guest."""
_TO_SAY = (
    "destination",
    "interfaces",
    "prepared",
    "console_listen_address",
    "migration_uri",
    "disk_port",
    "console_log_id",
    "hypervisor_uri",
    "files",
    "iscsi_initiator",
    "security_group_ids",
)


def prepared(asked: pb.MigrationData, answered: pb.MigrationData) -> pb.MigrationData:
    """The data after PrepareDestination; raises PeerMismatchError where it is of another kind."""
    told = pb.MigrationData()
    told.CopyFrom(answered)
    told.DiscardUnknownFields()
    before, after = _source_side(asked), _source_side(told)
    differing = [
        field.name
        for field in pb.MigrationData.DESCRIPTOR.fields
        if getattr(before, field.name) != getattr(after, field.name)
    ]
    if differing:
        raise PeerMismatchError(
            f"the destination answers of another migration: {', '.join(differing)}",
            metadata={"peer_reason": "ANSWER_DIFFERS"},
        )
    return told


@contextmanager
def answered(*reasons: str) -> Iterator[None]:
    """Inside, what a destination says for other reasons is a PeerUnreachableError.

    It is busy with the same instance, as after its restart, overloaded, or broken: asked again
    it may say something else.
    """
    try:
        yield
    except PeerUnreachableError:
        raise
    except ContractError as error:
        if error.metadata.get("peer_reason") in reasons:
            raise
        raise PeerUnreachableError(f"the destination does not say: {error}") from error


def _source_side(data: pb.MigrationData) -> pb.MigrationData:
    copy = pb.MigrationData()
    copy.CopyFrom(data)
    for name in _TO_SAY:
        copy.ClearField(name)  # type: ignore[arg-type]
    for disk in copy.disks:
        disk.ClearField("destination_source")
    return copy
