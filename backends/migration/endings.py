"""How a migration ends at its source: let go, taken back, forced, and by which error."""

from virtrpc.v1 import migration_pb2 as pb
from virtrpc.v1.event_pb2 import EventType
from virtrpc.v1.types_pb2 import Error

from backends.contract import Peer
from backends.errors import (
    CancelledError,
    ContractError,
    DamagedError,
    MigrationFailedError,
    PeerRefusedError,
    WrongStateError,
)
from backends.migration.answers import NOT_THERE, answered
from backends.migration.book import Migration, MigrationBook, Phase
from backends.migration.driver import MigrationDriver

CANCELLED, POST_COPY_LOST = "MIGRATION_CANCELLED", "POST_COPY_LOST"


def end_without(
    book: MigrationBook, migration: Migration, error: ContractError, *, durable: bool = True
) -> None:
    """The migration has come to nothing: the instance is here as before."""
    cancelled = isinstance(error, CancelledError)
    phase = Phase.MIGRATION_PHASE_CANCELLED if cancelled else Phase.MIGRATION_PHASE_FAILED
    book.end(migration, phase, record_of(error), durable=durable)


def end_rolled_back(book: MigrationBook, migration: Migration) -> None:
    """As `end_without`, by the error that the book has."""
    cancelled = migration.progress.error.reason in (CANCELLED, CancelledError.reason)
    phase = Phase.MIGRATION_PHASE_CANCELLED if cancelled else Phase.MIGRATION_PHASE_FAILED
    book.end(migration, phase)


def record_of(error: ContractError) -> Error:
    """An error as the book keeps it."""
    return Error(reason=error.reason, message=str(error)[:1024])


def complete_source(
    migration: Migration, *, driver: MigrationDriver, peer: Peer
) -> pb.MigrationData:
    """Lets go of everything here, when the destination has said that it has the guest.

    Raises WrongStateError where it does not.
    """
    question = completion(migration)
    question.validate_only = True
    try:
        with answered(*NOT_THERE):
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


def post_copy_lost() -> ContractError:
    """Why a guest that is the destination's cannot go on there."""
    why = "memory that was not over yet is lost with its host: the guest has to be started anew"
    return DamagedError(why, reason=POST_COPY_LOST)


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
