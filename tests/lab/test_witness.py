"""The witness and the verdict see the faults that were planted for them; nothing runs here."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from virtrpc.v1.operation_pb2 import (
    OPERATION_STATE_FAILED,
    OPERATION_STATE_RUNNING,
    OPERATION_STATE_SUCCEEDED,
    ListOperationsResponse,
    Operation,
)

from backends.console_log import ConsoleLog
from tests.lab import verdict
from tests.lab.hosts import LabHost
from tests.lab.witness import Seen, Witness

INSTANCE, MIGRATION = "11111111-2222-3333-4444-555555555555", "66666666-7777-8888-9999-aaaaaaaaaaaa"
MOVED = Operation(state=OPERATION_STATE_SUCCEEDED)
BROKEN = Operation(state=OPERATION_STATE_FAILED)


class PlantedHost:
    """What is asked of a host, as files and answers."""

    def __init__(self, folder: Path) -> None:
        (folder / "instances" / INSTANCE).mkdir(parents=True)
        (folder / "migrations").mkdir()
        self.uri = str(folder)
        self.daemon = SimpleNamespace(state_dir=folder)
        self.running: list[Any] = []
        self.domains = ""
        self.listening = "LISTEN 0 128 0.0.0.0:50051 0.0.0.0:*\n"
        self.operations: list[Operation] = []
        listed = SimpleNamespace(
            ListOperations=lambda _: ListOperationsResponse(operations=self.operations)
        )
        self.connection = SimpleNamespace(operations=listed)

    def machines(self, _instance_id: str) -> Sequence[Any]:
        return self.running

    def virsh(self, *_: str) -> str:
        return self.domains

    def run(self, *_: str) -> str:
        return self.listening

    def book(self, phase: str) -> None:
        path = self.daemon.state_dir / "migrations" / f"{MIGRATION}.json"
        path.write_text(json.dumps({"progress": {"phase": f"MIGRATION_PHASE_{phase}"}}))

    def prints(self) -> None:
        log = ConsoleLog.found_in(self.daemon.state_dir / "instances" / INSTANCE)
        assert log is not None
        with log.path.open("ab") as file:
            file.write(b"count 1\n")


@pytest.fixture
def hosts(tmp_path: Path) -> tuple[PlantedHost, PlantedHost]:
    """Source and destination."""
    made = PlantedHost(tmp_path / "a"), PlantedHost(tmp_path / "b")
    for host in made:
        ConsoleLog.of(host.daemon.state_dir / "instances" / INSTANCE, log_id=MIGRATION).path.touch()
    return made


@pytest.fixture
def witness(hosts: tuple[PlantedHost, PlantedHost]) -> Witness:
    """One that looks when it is told to."""
    return Witness(cast("Sequence[LabHost]", hosts), INSTANCE)


def looks(witness: Witness, hosts: Sequence[PlantedHost], prints: str) -> None:
    """A look at both hosts after each line that the guest printed on one of them."""
    for place in ["", *prints]:
        if place:
            hosts["ab".index(place)].prints()
        for host, seen in zip(hosts, witness.seen, strict=True):
            witness.look(cast("LabHost", host), seen)


@pytest.mark.parametrize(
    ("prints", "faults"), [("aaa", 0), ("aabb", 0), ("aba", 1), ("aabab", 1), ("bab", 1)]
)
def test_guest_that_prints_on_both_hosts(
    hosts: tuple[PlantedHost, PlantedHost], witness: Witness, prints: str, faults: int
) -> None:
    looks(witness, hosts, prints)
    assert len(witness.faults()) == faults


def test_hole_of_a_console_log_is_not_printed(
    hosts: tuple[PlantedHost, PlantedHost], witness: Witness
) -> None:
    looks(witness, hosts, "a")
    log = ConsoleLog.found_in(hosts[1].daemon.state_dir / "instances" / INSTANCE)
    assert log is not None
    with log.path.open("r+b") as file:
        file.truncate(8 << 20)
    looks(witness, hosts, "a")
    assert witness.seen[1] == Seen(size=8 << 20)


def test_two_machines_on_one_host(hosts: tuple[PlantedHost, PlantedHost], witness: Witness) -> None:
    hosts[1].running = [SimpleNamespace(pid=1), SimpleNamespace(pid=2)]
    looks(witness, hosts, "a")
    assert len(witness.faults()) == 1


@pytest.mark.parametrize(
    ("ending", "has", "books", "faults"),
    [
        (MOVED, (False, True), ("SUCCEEDED", "SUCCEEDED"), 0),
        (BROKEN, (True, False), ("FAILED", "CANCELLED"), 0),
        (BROKEN, (True, False), (None, None), 0),
        (BROKEN, (True, True), ("FAILED", "CANCELLED"), 1),
        (BROKEN, (False, False), ("FAILED", "CANCELLED"), 1),
        (MOVED, (True, True), ("SUCCEEDED", "SUCCEEDED"), 1),
        (MOVED, (False, True), ("FAILED", "SUCCEEDED"), 1),
        (MOVED, (False, True), ("SUCCEEDED", "CANCELLED"), 1),
        (MOVED, (False, True), ("SUCCEEDED", None), 1),
        (BROKEN, (True, False), ("SUCCEEDED", "CANCELLED"), 1),
        (BROKEN, (True, False), ("FAILED", "SUCCEEDED"), 1),
        (BROKEN, (True, False), ("FAILED", "PREPARING"), 1),
        (BROKEN, (True, False), ("ROLLING_BACK", "CANCELLED"), 1),
    ],
)
def test_hosts_that_disagree(  # noqa: PLR0917
    hosts: tuple[PlantedHost, PlantedHost],
    monkeypatch: pytest.MonkeyPatch,
    ending: Operation,
    has: tuple[bool, bool],
    books: tuple[str | None, str | None],
    faults: int,
) -> None:
    there = dict(zip((host.uri for host in hosts), has, strict=True))
    monkeypatch.setattr(verdict, "instance_at", lambda host, _: there[host.uri] or None)
    for host, phase in zip(hosts, books, strict=True):
        if phase is not None:
            host.book(phase)
    here, other = (cast("LabHost", host) for host in hosts)
    found = list(verdict.disagreements(here, other, INSTANCE, MIGRATION, ending))
    assert len(found) == faults, found


def _machine(host: PlantedHost) -> None:
    host.running = [SimpleNamespace(pid=1)]


def _domain(host: PlantedHost) -> None:
    host.domains = f"{INSTANCE}\n"


def _files(host: PlantedHost) -> None:
    (host.daemon.state_dir / "instances" / INSTANCE).mkdir()


def _port(host: PlantedHost) -> None:
    host.listening += "LISTEN 0 1 10.71.0.2:49153 0.0.0.0:*\n"


@pytest.mark.parametrize("plant", [_machine, _domain, _files, _port])
def test_what_is_left_behind(
    hosts: tuple[PlantedHost, PlantedHost], plant: Callable[[PlantedHost], None]
) -> None:
    host = hosts[0]
    for path in (host.daemon.state_dir / "instances" / INSTANCE).iterdir():
        path.unlink()
    (host.daemon.state_dir / "instances" / INSTANCE).rmdir()
    assert list(verdict.left_behind(cast("LabHost", host), INSTANCE)) == []
    plant(host)
    assert len(list(verdict.left_behind(cast("LabHost", host), INSTANCE))) == 1


def test_operation_that_has_not_ended(hosts: tuple[PlantedHost, PlantedHost]) -> None:
    hosts[0].operations = [
        Operation(verb="PrepareDestination", state=OPERATION_STATE_RUNNING),
        Operation(verb="CompleteDestination", done=True),
    ]
    (fault,) = verdict.unfinished(cast("LabHost", hosts[0]))
    assert "PrepareDestination" in fault


@pytest.mark.parametrize(
    ("numbers", "faults"), [([0, 1, 2], 0), ([7, 8, 0, 1], 0), ([1, 2, 4], 1), ([5, 5, 6], 1)]
)
def test_numbers_that_are_missed(numbers: list[int], faults: int) -> None:
    assert len(list(verdict.missed(numbers))) == faults
