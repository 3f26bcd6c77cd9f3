"""The course of a transfer, with a hypervisor that answers anything while the guest moves."""

import time
import uuid
from pathlib import Path
from threading import Event
from typing import cast

import pytest
from virtrpc.v1 import migration_pb2 as pb

from backends.contract import Peer
from backends.errors import (
    ContractError,
    HypervisorError,
    InstanceNotFoundError,
    MigrationFailedError,
    PeerRefusedError,
    PeerUnreachableError,
    UnreachableError,
)
from backends.migration.book import SOURCE, Migration, MigrationBook, Phase
from backends.migration.course import Course
from backends.migration.driver import Counters, Guest, MigrationDriver, Transfer
from backends.work import Work

GONE = InstanceNotFoundError("10b5a2a9-9e2f-4a2f-8a40-0f1f7f6b7c11")
LOOKS = 2
TRIES = 3


class Hypervisor:
    """A driver whose guest has moved when it was looked at a few times; looks are answered so."""

    def __init__(self, *answers: Counters | ContractError | None) -> None:
        self._answers = list(answers)
        self._moved = Event()
        self.fails_with: ContractError | None = None
        self.broken, self.mends = False, 0
        self.forced = 0

    def counters(self, _instance_id: str) -> Counters | None:
        """As MigrationDriver has it."""
        answer = self._answers.pop(0) if self._answers else None
        if not self._answers:
            self._moved.set()
        if isinstance(answer, ContractError):
            raise answer
        return answer

    def transfer(self, _transfer: Transfer) -> Counters:
        """As MigrationDriver has it."""
        assert self._moved.wait(10)
        if self.fails_with is not None:
            raise self.fails_with
        return Counters()

    def force(self, _instance_id: str, *, post_copy: bool) -> None:
        """As MigrationDriver has it: there is nothing to force any more."""
        assert not post_copy
        self.forced += 1
        raise HypervisorError("no job runs")

    def mend(self, _transfer: Transfer) -> Counters:
        """As MigrationDriver has it: the network is back at the third try."""
        self.mends += 1
        self.broken = self.mends < TRIES
        if self.broken:
            raise MigrationFailedError("the network is still away")
        return Counters()

    def guest(self, _instance_id: str) -> Guest:
        """As MigrationDriver has it."""
        return Guest.BROKEN if self.broken else Guest.GONE


class Destination:
    """A peer that has the guest, unless it says something else."""

    def __init__(self) -> None:
        self.says: ContractError | None = None

    def complete_destination(
        self, _request: pb.CompleteDestinationRequest
    ) -> pb.CompleteDestinationResponse:
        """As Peer has it."""
        if self.says is not None:
            raise self.says
        return pb.CompleteDestinationResponse()


class Unhurried:
    """Work that nobody cancels."""

    def phase(self, _name: str, *, percent: int, message: str = "") -> None:
        """As Work has it."""

    def step(self, _name: str) -> None:
        """As Work has it."""

    def checkpoint(self) -> None:
        """As Work has it."""

    def wait(self, seconds: float) -> None:
        """As Work has it."""
        time.sleep(min(seconds, 0.01))


@pytest.fixture
def migration(tmp_path: Path) -> Migration:
    data = pb.MigrationData(migration_id=str(uuid.uuid4()), instance_id=str(uuid.uuid4()))
    book = MigrationBook(tmp_path)
    return book.begin(Migration(SOURCE, data), Phase.MIGRATION_PHASE_COPYING_MEMORY)


@pytest.fixture
def book(tmp_path: Path) -> MigrationBook:
    return MigrationBook(tmp_path)


def course(
    hypervisor: Hypervisor, book: MigrationBook, destination: Destination | None = None
) -> Course:
    driver, peer = cast(MigrationDriver, hypervisor), cast(Peer, destination or Destination())
    return Course(cast(Work, Unhurried()), driver=driver, book=book, peer=peer)


def transfer(migration: Migration, options: pb.LiveMigrationOptions | None = None) -> Transfer:
    options = options or pb.LiveMigrationOptions()
    return Transfer(migration=migration, options=options, hypervisor_uri="", migration_uri="")


@pytest.mark.parametrize("look", [GONE, UnreachableError("lost"), HypervisorError("odd")], ids=str)
def test_guest_that_leaves_while_it_is_looked_at_has_moved(
    book: MigrationBook, migration: Migration, look: ContractError
) -> None:
    hypervisor = Hypervisor(Counters(), look)
    assert course(hypervisor, book).run(migration, transfer(migration)) == Counters()


@pytest.mark.parametrize("look", [GONE, UnreachableError("lost"), HypervisorError("odd")], ids=str)
def test_guest_that_leaves_after_a_restart_has_moved(
    book: MigrationBook, migration: Migration, look: ContractError
) -> None:
    hypervisor = Hypervisor(Counters(), look, None)
    assert course(hypervisor, book).follow(migration, transfer(migration)) == Counters()


def test_transfer_that_ends_before_it_is_forced_has_moved(
    book: MigrationBook, migration: Migration
) -> None:
    hypervisor = Hypervisor(Counters(), Counters())
    options = pb.LiveMigrationOptions(timeout_action=pb.MIGRATION_TIMEOUT_ACTION_FORCE_COMPLETE)
    options.timeout.FromNanoseconds(1)
    assert course(hypervisor, book).run(migration, transfer(migration, options)) == Counters()
    assert hypervisor.forced == LOOKS


def test_transfer_that_is_told_to_have_failed_is_asked_for(
    book: MigrationBook, migration: Migration
) -> None:
    hypervisor = Hypervisor(GONE)
    hypervisor.fails_with = MigrationFailedError("an answer was lost")
    assert course(hypervisor, book).run(migration, transfer(migration)) == Counters()


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("answer", [None, PeerUnreachableError("the network is away")], ids=str)
def test_post_copy_that_breaks_is_mended(
    book: MigrationBook, migration: Migration, answer: ContractError | None, *, restarted: bool
) -> None:
    hypervisor, destination = Hypervisor(None), Destination()
    hypervisor.broken, destination.says = True, answer
    hypervisor.fails_with = MigrationFailedError("the connection broke")
    migration.post_copy_allowed = True
    mended = course(hypervisor, book, destination)
    mended.follow(migration, transfer(migration)) if restarted else mended.run(
        migration, transfer(migration)
    )
    assert (hypervisor.mends, mended.lost) == (TRIES, False)


def test_post_copy_whose_destination_died_is_lost_and_not_taken_back(
    book: MigrationBook, migration: Migration
) -> None:
    hypervisor, destination = Hypervisor(None), Destination()
    hypervisor.broken = migration.post_copy_allowed = True
    hypervisor.fails_with = MigrationFailedError("the connection broke")
    destination.says = PeerRefusedError("no", peer_reason="NOT_SWITCHED")
    broken = course(hypervisor, book, destination)
    assert broken.run(migration, transfer(migration)) == Counters()
    assert broken.lost
    assert hypervisor.mends == 0
    assert migration.phase == Phase.MIGRATION_PHASE_POST_COPY_BROKEN
