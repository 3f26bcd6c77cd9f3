"""Rollbacks that a destination is asked for: by an operation, and beside it when that has ended."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import pytest
from virtrpc.v1 import migration_pb2 as pb

from backends.contract import Peer
from backends.errors import (
    ContractError,
    PeerMismatchError,
    PeerRefusedError,
    PeerUnreachableError,
)
from backends.migration.book import SOURCE, Migration, MigrationBook, Phase
from backends.migration.rollbacks import Rollbacks

SILENT = PeerUnreachableError("it does not answer")
BUSY = PeerRefusedError("busy", peer_code="ABORTED", peer_reason="INSTANCE_BUSY")
BROKEN = PeerRefusedError("broken", peer_code="INTERNAL")
ANOTHER = PeerMismatchError("another service")
HAS_IT = PeerRefusedError("no", peer_code="FAILED_PRECONDITION", peer_reason="SWITCHED")
NOT_SPOKEN_TO = PeerRefusedError("no TLS", peer_reason="INSECURE_PEER")


class Destination:
    """A peer that answers as it is told, and knows what it was asked."""

    def __init__(self) -> None:
        self.answer: ContractError | None = None
        self.refused_before: ContractError | None = None
        self.asked: list[pb.RollbackDestinationRequest] = []

    @contextmanager
    def at(self, _uri: str) -> Iterator[Peer]:
        """As Peers has it."""
        if self.refused_before is not None:
            raise self.refused_before
        yield cast(Peer, self)

    def rollback_destination(
        self, request: pb.RollbackDestinationRequest, *, within_s: float
    ) -> pb.RollbackDestinationResponse:
        """As Peer has it."""
        assert within_s >= 1
        self.asked.append(request)
        if self.answer is not None:
            raise self.answer
        return pb.RollbackDestinationResponse()


@pytest.fixture
def book(tmp_path: Path) -> MigrationBook:
    book = MigrationBook(tmp_path / "migrations")
    book.load()
    return book


@pytest.fixture
def destination() -> Destination:
    return Destination()


def failed_migration(book: MigrationBook, uri: str = "grpc://192.0.2.1:50051") -> Migration:
    data = pb.MigrationData(
        migration_id=str(uuid.uuid4()), instance_id=str(uuid.uuid4()), destination_uri=uri
    )
    return book.begin(Migration(SOURCE, data), Phase.MIGRATION_PHASE_ROLLING_BACK)


def test_answer_ends_it(book: MigrationBook, destination: Destination) -> None:
    migration = failed_migration(book)
    Rollbacks(destination, book, patience_s=60).ask(migration, source_has_guest=True)
    assert [request.source_has_guest for request in destination.asked] == [True]
    assert book.owing() == []


@pytest.mark.parametrize("answer", [SILENT, BUSY, BROKEN, ANOTHER], ids=str)
def test_what_is_no_answer_about_the_migration_is_asked_again(
    book: MigrationBook, destination: Destination, answer: ContractError
) -> None:
    destination.answer, migration = answer, failed_migration(book)
    with pytest.raises(PeerUnreachableError):
        Rollbacks(destination, book, patience_s=60).ask(migration, source_has_guest=True)
    assert book.owing() == []


def test_destination_that_has_the_guest_is_not_asked_again(
    book: MigrationBook, destination: Destination
) -> None:
    destination.answer, migration = HAS_IT, failed_migration(book)
    rollbacks = Rollbacks(destination, book, patience_s=0)
    rollbacks.ask(migration, source_has_guest=False)
    rollbacks.settle()
    assert len(destination.asked) == 1


@pytest.mark.parametrize("refusal", [SILENT, NOT_SPOKEN_TO], ids=str)
def test_refusal_before_the_call_is_as_good_as_silence(
    book: MigrationBook, destination: Destination, refusal: ContractError
) -> None:
    destination.refused_before, migration = refusal, failed_migration(book)
    Rollbacks(destination, book, patience_s=0).ask(migration, source_has_guest=True)
    assert book.owing() == [migration]


def test_what_is_owed_outlives_the_daemon_until_it_is_settled(
    book: MigrationBook, destination: Destination
) -> None:
    destination.answer, migration = SILENT, failed_migration(book)
    Rollbacks(destination, book, patience_s=0).ask(migration, source_has_guest=True)
    book.end(migration, Phase.MIGRATION_PHASE_FAILED)
    again = MigrationBook(book.folder)
    again.load()
    rollbacks = Rollbacks(destination, again, patience_s=0)
    rollbacks.settle()
    assert len(again.owing()) == 1
    destination.answer = None
    rollbacks.settle()
    rollbacks.settle()
    assert again.owing() == []
    assert destination.asked == [destination.asked[0]] * 3
    assert destination.asked[0].source_has_guest


def test_silent_destination_is_asked_once_in_a_round(
    book: MigrationBook, destination: Destination
) -> None:
    destination.answer = SILENT
    rollbacks = Rollbacks(destination, book, patience_s=0)
    for uri in ("grpc://192.0.2.1:1", "grpc://192.0.2.1:1", "grpc://192.0.2.2:1"):
        rollbacks.ask(failed_migration(book, uri), source_has_guest=True)
    destination.asked.clear()
    rollbacks.settle()
    assert len(destination.asked) == 2


def test_what_is_owed_is_not_forgotten_for_newer_ones(
    book: MigrationBook, destination: Destination
) -> None:
    destination.answer, owed = SILENT, failed_migration(book)
    Rollbacks(destination, book, patience_s=0).ask(owed, source_has_guest=True)
    book.end(owed, Phase.MIGRATION_PHASE_FAILED)
    for _ in range(300):
        book.end(failed_migration(book), Phase.MIGRATION_PHASE_FAILED, durable=False)
    assert book.owing() == [owed]
    assert book.find(owed.migration_id) is owed
