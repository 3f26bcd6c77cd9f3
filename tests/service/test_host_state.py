"""What the service knows of its host is on disk before it is seen, and never silently lost."""

import sqlite3
import uuid
from pathlib import Path

import pytest
from virtrpc.v1.host_pb2 import Aggregate

from backends.errors import NoRoomError, NotFoundError
from service import host_state
from service.database import DatabaseFileError
from service.host_state import Acceptance, HostState


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "host.sqlite"


def ids(count: int) -> list[str]:
    return sorted(str(uuid.uuid4()) for _ in range(count))


def members(state: HostState) -> list[str]:
    return [aggregate.aggregate_id for aggregate in state.aggregates()]


def reopened(state: HostState, path: Path) -> HostState:
    state.close()
    return HostState(path)


def test_host_is_open_and_in_no_aggregate_at_first(path: Path) -> None:
    state = HostState(path)
    assert state.acceptance == Acceptance()
    assert (state.acceptance.accepts, state.acceptance.reason) == (True, "")
    assert members(state) == []


def test_changes_are_there_after_a_restart(path: Path) -> None:
    state = HostState(path)
    closed = Acceptance(enabled=False, disabled_reason="é\"'", maintenance=True)
    state.accept(closed)
    one, other = ids(2)
    state.add(Aggregate(aggregate_id=one, name="one", metadata={"k": "v"}))
    state.add(Aggregate(aggregate_id=other))
    state.remove(other)
    state = reopened(state, path)
    assert state.acceptance == closed
    assert [(a.aggregate_id, a.name, dict(a.metadata)) for a in state.aggregates()] == [
        (one, "one", {"k": "v"})
    ]
    state.put_back(other)
    assert members(reopened(state, path)) == [one, other]


@pytest.mark.parametrize(
    ("acceptance", "reason"),
    [
        (Acceptance(disabled_reason="ignored"), ""),
        (Acceptance(enabled=False, disabled_reason="why"), "why"),
        (Acceptance(maintenance=True, maintenance_reason="m", disabled_reason="why"), "m"),
    ],
)
def test_reason_is_that_of_what_keeps_the_host_closed(acceptance: Acceptance, reason: str) -> None:
    assert acceptance.reason == reason
    assert Acceptance.from_json(acceptance.to_json()) == acceptance


def test_oldest_removals_are_forgotten(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_state, "MOST_REMOVALS", 2)
    state = HostState(path)
    first, second, third = ids(3)
    for aggregate_id in (first, second, first, third):
        state.add(Aggregate(aggregate_id=aggregate_id))
        state.remove(aggregate_id)
    for _ in range(2):
        assert [state.can_put_back(id_) for id_ in (first, second, third)] == [True, False, True]
        with pytest.raises(NotFoundError):
            state.put_back(second)
        state = reopened(state, path)


def test_host_is_in_no_more_aggregates_than_it_may(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host_state, "MOST_AGGREGATES", 1)
    state = HostState(path)
    one, other = ids(2)
    state.add(Aggregate(aggregate_id=one))
    state.add(Aggregate(aggregate_id=one, name="again"))
    assert (state.is_full(one), state.is_full(other)) == (False, True)
    with pytest.raises(NoRoomError) as refused:
        state.add(Aggregate(aggregate_id=other))
    assert refused.value.reason == "TOO_MANY_AGGREGATES"
    assert members(state) == [one]


def test_change_that_cannot_be_written_is_refused_and_not_seen(path: Path) -> None:
    state = HostState(path)
    with sqlite3.connect(path) as other:
        other.execute("DROP TABLE members")
        other.execute("DROP TABLE acceptance")
    other.close()
    with pytest.raises(NoRoomError) as refused:
        state.add(Aggregate(aggregate_id=ids(1)[0]))
    assert refused.value.reason == "STATE_UNWRITABLE"
    with pytest.raises(NoRoomError):
        state.accept(Acceptance(enabled=False))
    assert (members(state), state.acceptance.accepts) == ([], True)


def test_damaged_file_is_refused(path: Path) -> None:
    HostState(path).close()
    path.write_bytes(path.read_bytes()[:5000] + b"\xff" * 3000)
    with pytest.raises(DatabaseFileError, match="not a sound state of the host"):
        HostState(path)
    path.write_bytes(b"")
    with pytest.raises(DatabaseFileError):
        HostState(path)


def test_newer_and_senseless_files_are_refused(path: Path) -> None:
    HostState(path).close()
    with sqlite3.connect(path) as file:
        file.execute("INSERT INTO acceptance VALUES (1, '[]')")
    file.close()
    with pytest.raises(DatabaseFileError, match="cannot be read"):
        HostState(path)
    with sqlite3.connect(path) as file:
        file.execute("PRAGMA user_version = 99")
    file.close()
    with pytest.raises(DatabaseFileError, match="newer"):
        HostState(path)
