"""The journal: on disk before it says so, in few syncs, and never silently empty."""

import shutil
import sqlite3
import struct
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import wait
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from virtrpc.v1 import operation_pb2
from virtrpc.v1.operation_pb2 import Operation

from backends.work import Undo
from service.database import DatabaseFileError, open_database
from service.operations.journal import SCHEMA_VERSION, Entry, Journal, JournalError, Step

OPERATIONS = 40
JOURNALS = Path(__file__).parent / "journals"
_WAL_HEADER_BYTES, _WAL_FRAME_HEADER_BYTES = 32, 24


def operation(number: int = 0) -> Operation:
    return Operation(
        operation_id=str(uuid.UUID(int=number or uuid.uuid4().int)),
        verb="PauseInstance",
        state=operation_pb2.OPERATION_STATE_PENDING,
        message="x" * 200,
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.sqlite"


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    opened = Journal(path)
    yield opened
    opened.close()


def reopened(path: Path) -> Sequence[Entry]:
    """What a daemon finds that starts now, whatever the one before still has open."""
    copy = path.with_name(f"copy-{uuid.uuid4()}")
    copy.mkdir()
    for file in path.parent.glob(f"{path.name}*"):
        shutil.copy(file, copy / file.name)
    found = Journal(copy / path.name)
    try:
        return found.load()
    finally:
        found.close()


def commits(path: Path) -> int:
    """Transactions in the write-ahead log: frames that carry a size (SQLite file format, 4.2)."""
    content = Path(f"{path}-wal").read_bytes()
    (page_size,) = struct.unpack_from(">I", content, 8)
    frames = range(_WAL_HEADER_BYTES, len(content), _WAL_FRAME_HEADER_BYTES + page_size)
    return sum(1 for start in frames if struct.unpack_from(">I", content, start + 4)[0])


def test_accepted_operation_is_on_disk_when_the_future_is_done(
    journal: Journal, path: Path
) -> None:
    accepted = operation()
    journal.accept(accepted, b"request").result(timeout=10)
    (entry,) = reopened(path)
    assert entry == Entry(accepted, b"request", live=True, committed=False, steps=[])


def test_steps_come_back_in_order_with_their_undo(journal: Journal, path: Path) -> None:
    accepted = operation()
    journal.accept(accepted, b"")
    steps = [
        Step(0, "files", Undo("remove_files", {"path": "/x'y\"z"})),
        Step(1, "define", None),
        Step(2, "start", Undo("stop")),
    ]
    wait([journal.step(accepted.operation_id, step) for step in steps], timeout=10)
    (entry,) = reopened(path)
    assert entry.steps == steps


def test_undone_step_is_not_undone_again(journal: Journal, path: Path) -> None:
    accepted = operation()
    journal.accept(accepted, b"")
    for number in range(3):
        journal.step(accepted.operation_id, Step(number, f"step{number}", Undo("undo")))
    journal.undone(accepted.operation_id, 2).result(timeout=10)
    (entry,) = reopened(path)
    assert [step.number for step in entry.steps] == [0, 1]


def test_point_of_no_return_is_remembered(journal: Journal, path: Path) -> None:
    accepted = operation()
    journal.accept(accepted, b"")
    journal.commit(accepted.operation_id).result(timeout=10)
    (entry,) = reopened(path)
    assert (entry.live, entry.committed) == (True, True)


def test_ended_operation_keeps_its_outcome_and_loses_its_steps(
    journal: Journal, path: Path
) -> None:
    ended = operation()
    journal.accept(ended, b"request")
    journal.step(ended.operation_id, Step(0, "files", Undo("remove_files")))
    ended.state = operation_pb2.OPERATION_STATE_FAILED
    ended.error.reason = "NO_ROOM"
    journal.end(ended).result(timeout=10)
    (entry,) = reopened(path)
    assert entry == Entry(ended, b"request", live=False, committed=False, steps=[])


def test_operations_come_back_in_the_order_of_their_acceptance(
    journal: Journal, path: Path
) -> None:
    accepted = [operation() for _ in range(10)]
    wait([journal.accept(one, b"") for one in accepted], timeout=10)
    assert [entry.operation for entry in reopened(path)] == accepted


def test_burst_shares_its_syncs(journal: Journal, path: Path) -> None:
    """What arrives while one transaction syncs is in the next one, all together."""
    journal.accept(operation(), b"").result(timeout=10)
    before = commits(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as blocker:
        blocker.execute("BEGIN IMMEDIATE")
        futures = [journal.accept(operation(), b"") for _ in range(200)]
        blocker.execute("ROLLBACK")
    assert not wait(futures, timeout=10).not_done
    assert commits(path) - before <= 3
    assert len(reopened(path)) == 201


def test_everything_queued_is_written_before_it_is_closed(path: Path) -> None:
    journal = Journal(path)
    futures = [journal.accept(operation(), b"") for _ in range(50)]
    journal.close()
    assert all(future.done() for future in futures)
    assert len(reopened(path)) == 50


def test_write_that_fails_says_so_and_the_next_one_may_succeed(
    journal: Journal, path: Path
) -> None:
    with closing(sqlite3.connect(path)) as other:
        other.execute("ALTER TABLE operations RENAME TO hidden")
        with pytest.raises(JournalError, match="cannot be written"):
            journal.accept(operation(), b"").result(timeout=10)
        other.execute("ALTER TABLE hidden RENAME TO operations")
    journal.accept(operation(), b"").result(timeout=10)
    assert len(reopened(path)) == 1


def test_new_journal_is_empty_and_of_this_schema(journal: Journal, path: Path) -> None:
    assert journal.load() == []
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
        assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_journal_of_a_newer_schema_is_refused(path: Path) -> None:
    Journal(path).close()
    with closing(sqlite3.connect(path)) as database:
        database.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    with pytest.raises(JournalError, match="newer"):
        Journal(path)


@pytest.mark.parametrize("version", range(1, SCHEMA_VERSION + 1))
def test_journal_of_every_schema_there_was_is_read(path: Path, version: int) -> None:
    """Files as daemons of their time have left them, killed during a spawn and a pause."""
    for file in JOURNALS.glob(f"schema-{version}.sqlite*"):
        shutil.copy(file, path.with_name(file.name.replace(f"schema-{version}", "journal")))
    opened = Journal(path)
    ended, paused, spawned = opened.load()
    opened.close()
    assert (ended.operation.verb, ended.live) == ("SpawnInstance", False)
    assert ended.operation.state == operation_pb2.OPERATION_STATE_SUCCEEDED
    assert (paused.operation.verb, paused.live, paused.operation.request_id) == (
        "PauseInstance", True, "paused",
    )  # fmt: skip
    assert (spawned.operation.verb, spawned.live) == ("SpawnInstance", True)
    assert [step.name for step in spawned.steps] == ["files", "define"]
    assert all(step.undo is not None for step in spawned.steps)
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)


CHANGES = (
    "ALTER TABLE facts ADD COLUMN kind TEXT NOT NULL DEFAULT 'old';",
    "CREATE INDEX facts_kind ON facts (kind); UPDATE facts SET value = upper(value);",
)
BROKEN = "DELETE FROM absent;"


def opened_as(path: Path, *changes: str) -> list[tuple[object, ...]]:
    """The rows of a small database that has come to its schema by these changes."""
    schema = "CREATE TABLE facts (value TEXT NOT NULL);"
    with closing(
        open_database(path, schema=schema, changes=changes, what="book", loses="all")
    ) as database:
        return database.execute("SELECT * FROM facts").fetchall()


def old_book(path: Path) -> None:
    opened_as(path)
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("INSERT INTO facts VALUES ('kept')")


def test_older_file_comes_to_the_new_schema_by_every_change_once(path: Path) -> None:
    old_book(path)
    assert opened_as(path) == [("kept",)]
    assert opened_as(path, CHANGES[0]) == [("kept", "old")]
    for _ in range(2):
        assert opened_as(path, *CHANGES) == [("KEPT", "old")]


def test_change_that_fails_leaves_the_file_as_it_was(path: Path) -> None:
    old_book(path)
    with pytest.raises(DatabaseFileError, match="no such table: absent"):
        opened_as(path, CHANGES[0], "".join([CHANGES[1], BROKEN]))
    # The first change was whole; of the second there is nothing.
    assert opened_as(path, CHANGES[0]) == [("kept", "old")]


def test_newer_file_is_refused_with_what_to_do_and_stays_as_it_is(path: Path) -> None:
    old_book(path)
    opened_as(path, *CHANGES)
    with pytest.raises(DatabaseFileError, match=r"schema 3, newer than 2.*run the one that wrote"):
        opened_as(path, CHANGES[0])
    assert opened_as(path, *CHANGES) == [("KEPT", "old")]


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The file of a journal with some operations, closed in good order."""
    path = tmp_path_factory.mktemp("filled") / "journal.sqlite"
    journal = Journal(path)
    for number in range(1, OPERATIONS + 1):
        one = operation(number)
        journal.accept(one, b"request" * 20)
        journal.step(one.operation_id, Step(0, "files", Undo("remove_files", {"a": "b"})))
    journal.close()
    return path.read_bytes()


def count_or_refusal(path: Path, content: bytes, log: bytes = b"") -> int | None:
    """How many operations a daemon finds in a file; None where it refuses it."""
    for file in path.parent.glob("damaged*"):
        file.unlink()
    damaged = path.with_name("damaged.sqlite")
    damaged.write_bytes(content)
    if log:
        Path(f"{damaged}-wal").write_bytes(log)
    try:
        journal = Journal(damaged)
    except JournalError:
        return None
    try:
        return len(journal.load())
    except JournalError:
        return None
    finally:
        journal.close()


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes]:
    """The file and the write-ahead log of a journal that was not closed; a commit for each."""
    path = tmp_path_factory.mktemp("killed") / "journal.sqlite"
    journal = Journal(path)
    for number in range(1, OPERATIONS + 1):
        journal.accept(operation(number), b"request" * 20).result()
    content = path.read_bytes(), Path(f"{path}-wal").read_bytes()
    journal.close()
    return content


def test_log_of_a_killed_daemon_is_read(killed: tuple[bytes, bytes], path: Path) -> None:
    assert count_or_refusal(path, *killed) == OPERATIONS


def test_write_that_a_crash_cut_off_is_forgotten(killed: tuple[bytes, bytes], path: Path) -> None:
    content, log = killed
    assert count_or_refusal(path, content, log[:-1]) == OPERATIONS - 1
    torn = log[:-100] + bytes(100)
    assert count_or_refusal(path, content, torn) in (OPERATIONS, OPERATIONS - 1)


@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_flipped_bit_in_the_log_costs_no_operation_but_the_last(
    killed: tuple[bytes, bytes], path: Path, data: st.DataObject
) -> None:
    content, log = killed[0], bytearray(killed[1])
    place = data.draw(st.integers(0, len(log) - 1))
    log[place] ^= 1 << data.draw(st.integers(0, 7))
    assert count_or_refusal(path, content, bytes(log)) in (None, OPERATIONS, OPERATIONS - 1)


def test_damaged_log_is_refused_again_and_stays_as_it_is(
    killed: tuple[bytes, bytes], path: Path
) -> None:
    """Not even the first daemon that finds it may take away what can still be saved."""
    content, log = killed[0], bytearray(killed[1])
    log[len(log) // 2] ^= 1
    path.write_bytes(content)
    Path(f"{path}-wal").write_bytes(log)
    for _ in range(2):
        with pytest.raises(JournalError, match="write-ahead log is damaged"):
            Journal(path)
    assert Path(f"{path}-wal").read_bytes() == log


def test_log_that_began_anew_is_not_a_damaged_one(journal: Journal, path: Path) -> None:
    """What is behind its new frames is left from before."""
    for number in range(1, 11):
        journal.accept(operation(number), b"request").result()
    with closing(sqlite3.connect(path)) as other:
        assert other.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()[0] == 0
    journal.accept(operation(11), b"request").result()
    assert len(reopened(path)) == 11


def test_sound_file_is_read(filled: bytes, path: Path) -> None:
    assert count_or_refusal(path, filled) == OPERATIONS


def test_file_emptied_by_a_full_disk_or_a_copy_gone_wrong_is_refused(path: Path) -> None:
    assert count_or_refusal(path, b"") is None


@pytest.mark.parametrize("share", [0.0, 0.001, 0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.999])
def test_truncated_file_is_refused_never_silently_empty(
    filled: bytes, path: Path, share: float
) -> None:
    """Of the last page SQLite may not need the end; nothing is lost then."""
    assert count_or_refusal(path, filled[: int(len(filled) * share)]) in (None, OPERATIONS)


@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_flipped_bit_never_empties_the_journal_or_escapes_as_another_error(
    filled: bytes, path: Path, data: st.DataObject
) -> None:
    content = bytearray(filled)
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= 1 << data.draw(st.integers(0, 7))
    assert count_or_refusal(path, bytes(content)) in (None, OPERATIONS)


@settings(
    deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_overwritten_block_never_empties_the_journal(
    filled: bytes, path: Path, data: st.DataObject
) -> None:
    content = bytearray(filled)
    place = data.draw(st.integers(0, len(content) // 512 - 1)) * 512
    content[place : place + 512] = bytes(512)
    assert count_or_refusal(path, bytes(content)) in (None, OPERATIONS)
