"""How a migration ends at its source: let go, taken back, forced, and by which error."""

from virtrpc.v1 import migration_pb2 as pb
from virtrpc.v1.event_pb2 import EventType
from virtrpc.v1.types_pb2 import Error

from backends.contract import Peer
from backends.errors import (
    CancelledError,
    ContractError,
    MigrationFailedError,
    PeerRefusedError,
    PeerUnreachableError,
    WrongStateError,
)
from backends.migration.book import Migration, MigrationBook, Phase
from backends.migration.driver import MigrationDriver

CANCELLED = "MIGRATION_CANCELLED"
# Codes of a daemon that is busy with the instance, or altogether.
_LATER = ("ABORTED", "RESOURCE_EXHAUSTED")


def roll_back_destination(
    migration: Migration, peer: Peer, *, source_has_guest: bool = False
) -> None:
    """Asks the destination to forget the migration.

    `source_has_guest`: a copy that has arrived and was never started is one too many. Raises
    PeerUnreachableError where it cannot do so now, PeerRefusedError where it will not.
    """
    request = pb.RollbackDestinationRequest(
        instance_id=migration.instance_id,
        migration_id=migration.migration_id,
        source_has_guest=source_has_guest,
    )
    try:
        peer.rollback_destination(request)
    except PeerRefusedError as error:
        if error.metadata["peer_code"] not in _LATER:
            raise
        raise PeerUnreachableError(f"not rolled back yet: {error}") from error


def end_without(
    book: MigrationBook,
    migration: Migration,
    error: ContractError | None,
    *,
    durable: bool = True,
) -> None:
    """The migration has come to nothing: the instance is here as before."""
    cancelled = error is not None and isinstance(error, CancelledError)
    phase = Phase.MIGRATION_PHASE_CANCELLED if cancelled else Phase.MIGRATION_PHASE_FAILED
    record = Error(reason=error.reason, message=str(error)[:1024]) if error else None
    book.end(migration, phase, record, durable=durable)


def complete_source(
    migration: Migration, *, driver: MigrationDriver, peer: Peer
) -> pb.MigrationData:
    """Lets go of everything here, when the destination has said that it has the guest.

    Raises WrongStateError where it does not.
    """
    question = completion(migration)
    question.validate_only = True
    try:
        peer.complete_destination(question)
    except PeerRefusedError as error:
        raise WrongStateError(
            f"the destination does not have the guest: {error}", reason="NOT_SWITCHED"
        ) from error
    let_go(migration, driver)
    return migration.data


def let_go(migration: Migration, driver: MigrationDriver) -> None:
    """Removes what is left here of a guest that the destination has, and says where it went."""
    driver.give_up(migration)
    driver.connections.disconnect(migration.instance_id)
    uri = migration.data.destination_uri
    driver.tell(migration.instance_id, EventType.EVENT_TYPE_MIGRATION_COMPLETED, uri)


def force(
    driver: MigrationDriver, book: MigrationBook, migration: Migration, *, post_copy: bool
) -> None:
    """Makes a transfer end."""
    driver.force(migration.instance_id, post_copy=post_copy)
    with book.change(migration) as progress:
        migration.forced = True
        if post_copy:  # what is left may be over before anybody looks
            progress.phase = Phase.MIGRATION_PHASE_POST_COPY
    if post_copy:
        driver.tell(migration.instance_id, EventType.EVENT_TYPE_POSTCOPY_STARTED, "")


def completion(migration: Migration) -> pb.CompleteDestinationRequest:
    """What the destination is asked when its guest should be there."""
    return pb.CompleteDestinationRequest(
        instance_id=migration.instance_id,
        migration_id=migration.migration_id,
        data=migration.data,
    )


def reason_of(migration: Migration, error: ContractError) -> ContractError:
    """The error of a transfer that was stopped on purpose, or else its own."""
    if migration.abort == "timeout":
        return MigrationFailedError("the transfer took too long", reason="MIGRATION_TIMEOUT")
    if migration.abort:
        return CancelledError("the migration was aborted on request", reason=CANCELLED)
    return error
