"""How a cold migration ends at its source: the copy goes, or it comes back.

    pending ─▶ confirm: the destination has it for good ─▶ the copy is gone
       ╰─────▶ revert:  the destination has given it up  ─▶ the copy is the instance

Asked of a destination that does not answer, neither is begun.
"""

import structlog
from virtrpc.v1 import migration_pb2 as pb
from virtrpc.v1.event_pb2 import EventType

from backends.contract import Peer, Peers
from backends.errors import (
    ContractError,
    NotFoundError,
    PeerRefusedError,
    PeerUnreachableError,
    WrongStateError,
)
from backends.migration import checks, console
from backends.migration.book import Migration, MigrationBook, Phase
from backends.migration.cold_driver import ColdDriver
from backends.migration.driver import MigrationDriver
from backends.migration.endings import completion, let_go
from backends.migration.rollbacks import give_up_there
from backends.power_states import start_blockers
from backends.specification import require_managed
from backends.work import Work

_HAS_NOT = ("NOT_SWITCHED", "INSTANCE_NOT_FOUND")
log = structlog.get_logger()


class ColdEndings:
    """Confirmation and return of what was released here."""

    def __init__(
        self, driver: MigrationDriver, cold: ColdDriver, *, peers: Peers, book: MigrationBook
    ) -> None:
        self._driver = driver
        self._cold = cold
        self._peers = peers
        self._book = book

    def confirm(
        self, request: pb.ConfirmMigrationRequest, work: Work
    ) -> pb.ConfirmMigrationResponse:
        """See ColdMigration."""
        migration = self._of_this_source(request.instance_id, request.migration_id)
        if migration.phase == Phase.MIGRATION_PHASE_CANCELLED:
            raise WrongStateError("the migration was reverted", reason="REVERTED")
        if not migration.pending:
            work.ready()
            self._tell_there(migration)
            return pb.ConfirmMigrationResponse(already_confirmed=True)
        if migration.in_place:
            work.ready([] if migration.finished else [_not_finished()])
            work.step("forget")
            self._cold.forget_kept(migration.instance_id)
        else:
            self._confirm_there(migration, work)
        self._book.end(migration, Phase.MIGRATION_PHASE_SUCCEEDED)
        return pb.ConfirmMigrationResponse()

    def revert(self, request: pb.RevertMigrationRequest, work: Work) -> pb.RevertMigrationResponse:
        """See ColdMigration."""
        migration = self._of_this_source(request.instance_id, request.migration_id)
        if migration.phase == Phase.MIGRATION_PHASE_SUCCEEDED:
            raise WrongStateError("the migration was confirmed", reason="CONFIRMED")
        instance = require_managed(self._driver.find(request.instance_id), request.instance_id)
        if not migration.pending:
            work.ready()
            return pb.RevertMigrationResponse(instance=instance)
        if not (migration.in_place or request.destination_fenced):
            with self._peers.at(migration.data.destination_uri) as peer:
                work.ready(_still_there(migration, peer))
                work.step("roll back")
                _give_up_there(migration, peer)
        else:
            work.ready()
        work.commit()  # it is off, or of the wrong size, until it has come back
        self._come_back(migration, work, power_on=request.power_on)
        migration.finished = False
        self._book.end(migration, Phase.MIGRATION_PHASE_CANCELLED)
        found = self._driver.find(request.instance_id)
        return pb.RevertMigrationResponse(instance=found)

    def _of_this_source(self, instance_id: str, migration_id: str) -> Migration:
        """A migration that was released here; raises NotFoundError."""
        migration = self._book.find(migration_id)
        found = migration is not None and migration.instance_id == instance_id.lower()
        if migration is None or not found or not migration.cold_result.HasField("data"):
            raise NotFoundError(
                "no such migration has left its copy here",
                reason="MIGRATION_NOT_FOUND",
                metadata={"instance_id": instance_id, "migration_id": migration_id},
            )
        return migration

    def _confirm_there(self, migration: Migration, work: Work) -> None:
        """The copy goes, when the destination has said that it has the instance for good."""
        with self._peers.at(migration.data.destination_uri) as peer:
            there = _has_it(migration, peer)
            work.ready([] if there else [_not_finished()])
            work.step("complete")
            request = completion(migration)
            log = self._driver.console(migration.instance_id)
            if log is not None and migration.data.storage == checks.COPY:
                request.console_log.extend(console.last_pieces(log))
            peer.complete_destination(request)
        work.commit()  # the destination has it for good
        work.step("forget")
        let_go(migration, self._driver)

    def _tell_there(self, migration: Migration) -> None:
        """The destination may not know it yet, where the copy was destroyed instead."""
        if migration.in_place:
            return
        try:
            with self._peers.at(migration.data.destination_uri) as peer:
                peer.complete_destination(completion(migration))
        except (PeerRefusedError, PeerUnreachableError) as error:
            log.info("destination does not take a confirmation", reason=str(error))

    def _come_back(self, migration: Migration, work: Work, *, power_on: bool) -> None:
        work.step("put back")
        if migration.in_place:
            self._cold.put_back(migration.instance_id)
        else:
            self._cold.take_back(migration.instance_id)
        self._cold.bar(migration.instance_id, "")
        instance = self._driver.find(migration.instance_id)
        if power_on and instance is not None and not start_blockers(instance):
            work.step("start")
            self._cold.start(migration.instance_id)
        self._driver.tell(migration.instance_id, EventType.EVENT_TYPE_UPDATED, "reverted")


def _has_it(migration: Migration, peer: Peer) -> bool:
    """Whether the destination has made the instance; raises where it cannot say."""
    question = completion(migration)
    question.validate_only = True
    try:
        peer.complete_destination(question)
    except PeerRefusedError as error:
        if error.peer_reason in _HAS_NOT:
            return False
        raise
    return True


def _still_there(migration: Migration, peer: Peer) -> list[ContractError]:
    return [_there()] if _has_it(migration, peer) else []


def _give_up_there(migration: Migration, peer: Peer) -> None:
    """From here on the destination cannot make the instance of this migration."""
    try:
        give_up_there(migration, peer)
    except PeerRefusedError as error:
        if error.peer_reason == "SWITCHED":
            raise _there() from error
        raise


def _there() -> ContractError:
    why = "the destination has the instance: DestroyInstance there first"
    return WrongStateError(why, reason="DESTINATION_HAS_INSTANCE")


def _not_finished() -> ContractError:
    why = "the destination does not have the instance by this migration"
    return WrongStateError(why, reason="NOT_FINISHED")
