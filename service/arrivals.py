"""An instance that arrives by a live migration is its source's until its source says so.

Its guest is here and stands still: whoever let it go on would make it run twice.
"""

from collections.abc import Sequence

from google.protobuf.message import Message
from virtrpc.v1.migration_pb2 import MIGRATION_KIND_LIVE
from virtrpc.v1.options_pb2 import ROLE_MIGRATOR

from backends.errors import ContractError, WrongStateError
from backends.migration.book import DESTINATION, MigrationBook
from service.verbs import Verb


def kept_for_its_source(
    verb: Verb, request: Message, book: MigrationBook
) -> Sequence[ContractError]:
    """Why a call is refused that would touch an arriving instance; empty where it is not."""
    if verb.options.preempts or verb.role == ROLE_MIGRATOR:
        return ()
    expected = book.open_of(getattr(request, "instance_id", ""), DESTINATION)
    if expected is None or expected.data.kind != MIGRATION_KIND_LIVE:
        return ()
    why = "the instance is arriving here by a migration, and its source's until that is over"
    return (
        WrongStateError(why, reason="ARRIVING", metadata={"migration_id": expected.migration_id}),
    )
