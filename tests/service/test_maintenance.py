"""What maintenance makes of instances, and of the host where it does not come to its end."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import cast

import pytest
from virtrpc.v1 import host_pb2 as pb
from virtrpc.v1 import types_pb2
from virtrpc.v1.event_pb2 import Event
from virtrpc.v1.instance_pb2 import Instance
from virtrpc.v1.migration_pb2 import LiveMigrateInstanceRequest, LiveMigrationResult
from virtrpc.v1.operation_pb2 import OPERATION_STATE_CANCELLED

from backends.contract import Facet, Observer
from backends.errors import BlockedError, CancelledError, ContractError, WrongStateError
from backends.work import Undo, Work
from service.bindings import Bindings
from service.host_door import HostDoor
from service.host_state import Acceptance, HostState
from service.operations.operation import Checks, nothing_keeps_out
from service.own.evacuation import Evacuation
from service.own.maintenance import Maintenance
from service.truth import Truth
from tests.crash.engine import VERBS, WAIT_S, Engine

RUNNING, OFF = types_pb2.POWER_STATE_RUNNING, types_pb2.POWER_STATE_SHUTDOWN
MIGRATED = pb.MAINTENANCE_OUTCOME_MIGRATED
FAILED, STAYS = pb.MAINTENANCE_OUTCOME_FAILED, pb.MAINTENANCE_OUTCOME_STAYS
GOOD, OTHER, BAD = "grpc://good:1", "grpc://other:1", "grpc://bad:1"


class Begun(Checks):
    """A Work that is under way, and is cancelled when a test says so."""

    operation_id = "11111111-1111-4111-8111-11111111aaaa"

    def __init__(self) -> None:
        super().__init__("test", nothing_keeps_out)
        self.undos: list[Undo] = []
        self.cancelled = threading.Event()

    def ready(self, blockers: Sequence[ContractError] = ()) -> None:
        if blockers:
            raise BlockedError(blockers)

    def step(self, name: str, undo: Undo | None = None) -> None:
        assert undo is not None, name
        self.undos.append(undo)

    def wait(self, seconds: float) -> None:
        self.cancelled.wait(seconds)
        self.checkpoint()

    def checkpoint(self) -> None:
        if self.cancelled.is_set():
            raise CancelledError("cancelled")


class Told:
    """An observer that notes what was told of the host."""

    def __init__(self) -> None:
        self.details: list[str] = []

    def event(self, event: Event) -> None:
        self.details.append(event.detail)


class Migrations(Facet):
    """Migrates by what a test gives it, and notes how many it does at a time."""

    def __init__(self) -> None:
        self.act: Callable[[LiveMigrateInstanceRequest, Work], None] = lambda *_: None
        self.begun: list[str] = []
        self.most = 0
        self._now = 0
        self._lock = threading.Lock()

    def live_migrate_instance(
        self, request: LiveMigrateInstanceRequest, work: Work
    ) -> LiveMigrationResult:
        refused = request.destination_uri == BAD
        work.ready([WrongStateError("no room", reason="REFUSED")] if refused else [])
        with self._lock:
            self.begun.append(request.instance_id)
            self._now += 1
            self.most = max(self.most, self._now)
        try:
            self.act(request, work)
        finally:
            with self._lock:
                self._now -= 1
        return LiveMigrationResult()


class Host:
    """A host with some instances, on an engine of its own."""

    def __init__(self, folder: Path) -> None:
        self.engine = Engine(folder)
        self.engine.operations.recover()
        self.state = HostState(folder / "host.sqlite")
        self.truth, self.told, self.migrations = Truth(), Told(), Migrations()
        self.bindings = Bindings(own=[], facets=[self.migrations])
        self.door = HostDoor(self.state, self.truth, cast("Observer", self.told))
        evacuation = Evacuation(
            self.engine.operations,
            self.bindings,
            migrate=VERBS["LiveMigrateInstance"],
            is_on=self.truth.is_on,
        )
        self.verb = Maintenance(self.door, evacuation, host=pb.Host, instances=self.truth.all)

    def has(self, **instances: "types_pb2.PowerState.ValueType") -> None:
        """The instances that it has, by name."""
        self.truth.replace_all([instance(name, state) for name, state in instances.items()])

    async def empty(
        self, *destinations: str, work: Begun | None = None, **fields: int
    ) -> pb.SetMaintenanceModeResponse:
        """Maintenance on, as the worker of its operation does it."""
        request = pb.SetMaintenanceModeRequest(
            maintenance=True,
            reason="why",
            destination_uris=destinations,
            **fields,  # type: ignore[arg-type]
        )
        async with asyncio.timeout(WAIT_S):
            return await asyncio.to_thread(self.verb.set_maintenance_mode, request, work or Begun())


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    made = Host(tmp_path)
    yield made
    made.state.close()
    made.engine.close()


def instance(
    name: str, state: "types_pb2.PowerState.ValueType", *, managed: bool = True
) -> Instance:
    return Instance(instance_id=name, name=name, power_state=state, managed=managed)


async def test_host_that_cannot_migrate_says_so_of_each_instance(host: Host) -> None:
    host.bindings.missing = {"live_migrate_instance": "not here"}
    host.truth.replace_all(
        [
            instance("e", RUNNING, managed=False),
            instance("d", types_pb2.POWER_STATE_PAUSED),
            instance("c", types_pb2.POWER_STATE_SUSPENDED),
            instance("b", OFF),
            instance("a", RUNNING),
        ]
    )
    result = await host.empty(GOOD)
    shown = [(found.name, found.outcome, found.error.reason) for found in result.instances]
    assert shown == [
        ("a", FAILED, "CAPABILITY_MISSING"),
        ("b", STAYS, ""),
        ("c", STAYS, ""),
        ("d", FAILED, "CAPABILITY_MISSING"),
        ("e", FAILED, "FOREIGN_INSTANCE"),
    ]
    assert not result.evacuated
    assert "not here" in result.instances[0].error.message


async def test_host_with_nothing_on_is_evacuated(host: Host) -> None:
    host.has(a=OFF)
    assert (await host.empty()).evacuated
    assert host.state.acceptance.maintenance
    assert host.told.details == ["disabled"]


async def test_instances_go_to_the_destination_that_was_given_the_fewest(host: Host) -> None:
    host.has(a=RUNNING, b=RUNNING, c=OFF, d=RUNNING)
    result = await host.empty(GOOD, OTHER)
    shown = [(found.name, found.outcome, found.destination_uri) for found in result.instances]
    assert shown == [
        ("a", MIGRATED, GOOD),
        ("b", MIGRATED, OTHER),
        ("c", STAYS, ""),
        ("d", MIGRATED, GOOD),
    ]
    assert result.evacuated
    assert host.migrations.most == 1
    for found in result.instances:
        if found.operation_id:
            assert host.engine.book.get(found.operation_id).instance_id == found.instance_id


async def test_refused_instance_goes_to_the_next_destination(host: Host) -> None:
    host.has(a=RUNNING)
    (moved,) = (await host.empty(BAD, GOOD)).instances
    assert (moved.outcome, moved.destination_uri) == (MIGRATED, GOOD)
    assert not moved.HasField("error")


async def test_instance_that_nobody_takes_stays_with_the_last_error(host: Host) -> None:
    host.has(a=RUNNING)
    result = await host.empty(BAD)
    (left,) = result.instances
    assert (left.outcome, left.error.reason, left.destination_uri) == (FAILED, "REFUSED", BAD)
    assert left.operation_id
    assert not result.evacuated


async def test_instance_that_stopped_meanwhile_is_gone(host: Host) -> None:
    host.has(a=RUNNING)

    def stops(request: LiveMigrateInstanceRequest, _work: Work) -> None:
        host.truth.remove(request.instance_id)
        raise WrongStateError("it is off")

    host.migrations.act = stops
    (gone,) = (await host.empty(GOOD, OTHER)).instances
    assert (gone.outcome, gone.HasField("error")) == (pb.MAINTENANCE_OUTCOME_GONE, False)
    assert host.migrations.begun == ["a"]


async def test_as_many_migrate_at_a_time_as_are_allowed(host: Host) -> None:
    host.has(a=RUNNING, b=RUNNING, c=RUNNING, d=RUNNING)
    two = threading.Barrier(2)
    host.migrations.act = lambda *_: cast("None", two.wait(WAIT_S))
    result = await host.empty(GOOD, max_parallel=2)
    assert {found.outcome for found in result.instances} == {MIGRATED}
    assert host.migrations.most == 2


@pytest.mark.parametrize("before", [Acceptance(), Acceptance(enabled=False, disabled_reason="x")])
async def test_cancel_stops_migrations_and_leaves_the_host_as_it_was(
    host: Host, before: Acceptance
) -> None:
    host.has(a=RUNNING, b=RUNNING)
    host.door.accept(before)
    work = Begun()

    def waits(_request: LiveMigrateInstanceRequest, migration: Work) -> None:
        work.cancelled.set()
        migration.wait(WAIT_S)

    host.migrations.act = waits
    with pytest.raises(CancelledError):
        await host.empty(GOOD, work=work)
    assert host.migrations.begun == ["a"]
    (operation,) = host.engine.book.newest_first()
    ended = await host.engine.until_done(operation.operation_id)
    assert ended.state == OPERATION_STATE_CANCELLED
    assert host.state.acceptance.maintenance
    for undo in reversed(work.undos):
        host.door.undo(undo.arguments["before"])
    assert host.state.acceptance == before


async def test_check_names_the_instances_that_no_destination_accepts(host: Host) -> None:
    host.has(a=RUNNING, b=OFF, c=RUNNING)
    with pytest.raises(BlockedError) as blocked:
        await host.empty(BAD, validate_only=True)
    assert [blocker.reason for blocker in blocked.value.blockers] == ["REFUSED", "REFUSED"]
    assert host.state.acceptance == Acceptance()
    assert host.migrations.begun == []
