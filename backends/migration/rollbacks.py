"""Destinations that have to forget a migration which has come to nothing.

    asked ─▶ it has forgotten, or says that it has the guest ─▶ ended
      ╰─▶ no answer: asked again ─▶ none for longer than the patience ─▶ ended, and owed

What is owed stands in the book, so it is still asked for when the destination is back, or
this daemon. The instance is free meanwhile: by the book's end of a migration nobody gives
its guest the word any more, so the copy that may wait there stays still.
"""

import time

import structlog
from virtrpc.v1 import migration_pb2 as pb

from backends.contract import Peer, Peers
from backends.errors import PeerRefusedError, PeerUnreachableError
from backends.migration.answers import answered
from backends.migration.book import Migration, MigrationBook

# What a destination answers of the migration itself: it has the guest, or knows it as another's.
_FINAL = ("SWITCHED", "MIGRATION_EXISTS")
# For each question.
_LEAST_S, _MOST_S = 1.0, 30.0
log = structlog.get_logger()


class Rollbacks:
    """Asks for them. Callable from any thread."""

    def __init__(self, peers: Peers, book: MigrationBook, *, patience_s: float) -> None:
        """`patience_s`: how long an operation asks before the rollback is owed."""
        self._peers = peers
        self._book = book
        self._patience_s = patience_s
        self._asked_since: dict[str, float] = {}

    def ask(self, migration: Migration, *, source_has_guest: bool) -> None:
        """Has the destination forget a migration, now or later.

        Raises PeerUnreachableError where it did not answer and may be asked again soon.
        """
        since = self._asked_since.setdefault(migration.migration_id, time.monotonic())
        request = _forgetting(migration, source_has_guest=source_has_guest)
        left_s = since + self._patience_s - time.monotonic()
        try:
            self._call(migration, request, within_s=min(max(left_s, _LEAST_S), _MOST_S))
        except PeerUnreachableError as error:
            if time.monotonic() - since < self._patience_s:
                raise
            self._book.owe(migration, request)
            log.warning("rollback owed", uri=migration.data.destination_uri, reason=str(error))
        self._asked_since.pop(migration.migration_id, None)

    def settle(self) -> None:
        """Asks once for each that is owed; a destination that is silent only for the first."""
        silent: set[str] = set()
        for migration in self._book.owing():
            uri, request = migration.data.destination_uri, migration.owed
            if uri in silent or request is None:
                continue
            try:
                self._call(migration, request, within_s=_MOST_S)
            except PeerUnreachableError:
                silent.add(uri)
                continue
            self._book.owe(migration, None)
            log.info("rollback settled", uri=uri, migration_id=migration.migration_id)

    def _call(
        self, migration: Migration, request: pb.RollbackDestinationRequest, *, within_s: float
    ) -> None:
        """Raises PeerUnreachableError for everything that is no answer about the migration.

        So is a refusal before the call, as where the configuration no longer lets this
        daemon speak to that one: nothing was said there.
        """
        uri = migration.data.destination_uri
        try:
            with answered(*_FINAL), self._peers.at(uri) as peer:
                peer.rollback_destination(request, within_s=within_s)
        except PeerRefusedError as error:
            log.warning("destination keeps a migration", uri=uri, reason=error.peer_reason)


def give_up_there(migration: Migration, peer: Peer) -> None:
    """Has a destination forget a migration, or say why not.

    Raises PeerRefusedError where it says that it will not, else PeerUnreachableError.
    """
    with answered(*_FINAL):
        peer.rollback_destination(_forgetting(migration))


def _forgetting(
    migration: Migration, *, source_has_guest: bool = False
) -> pb.RollbackDestinationRequest:
    """`source_has_guest`: a copy that has arrived and was never started is one too many."""
    return pb.RollbackDestinationRequest(
        instance_id=migration.instance_id,
        migration_id=migration.migration_id,
        source_has_guest=source_has_guest,
    )
