"""What maintenance makes of instances, and of the host where it does not come to its end."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

import pytest
from virtrpc.v1 import host_pb2 as pb
from virtrpc.v1 import types_pb2
from virtrpc.v1.instance_pb2 import Instance

from backends.contract import Observer
from backends.errors import CancelledError, ContractError
from backends.work import Undo
from service.host_door import HostDoor
from service.host_state import Acceptance, HostState
from service.operations.operation import Checks, nothing_keeps_out
from service.own.maintenance import Maintenance
from service.truth import Truth

ON, OFF = pb.MAINTENANCE_OUTCOME_FAILED, pb.MAINTENANCE_OUTCOME_STAYS


class Begun(Checks):
    """A Work that is under way, and is cancelled at its checkpoint where it is to be."""

    def __init__(self, *, cancelled: bool = False) -> None:
        super().__init__("test", nothing_keeps_out)
        self.undos: list[Undo] = []
        self._cancelled = cancelled

    def ready(self, blockers: Sequence[ContractError] = ()) -> None:
        assert list(blockers) == []

    def step(self, name: str, undo: Undo | None = None) -> None:
        assert undo is not None, name
        self.undos.append(undo)

    def checkpoint(self) -> None:
        if self._cancelled:
            raise CancelledError("cancelled")


class Told:
    """An observer that notes what was told of the host."""

    def __init__(self) -> None:
        self.details: list[str] = []

    def event(self, _kind: int, *, detail: str = "") -> None:
        self.details.append(detail)


class Bench:
    """A host with these instances."""

    def __init__(self, folder: Path, *instances: Instance) -> None:
        self.state = HostState(folder / "host.sqlite")
        self.told = Told()
        self.door = HostDoor(self.state, Truth(), cast("Observer", self.told))
        self.verb = Maintenance(
            self.door,
            host=pb.Host,
            instances=lambda: list(instances),
            why_no_migration=lambda: "not here",
        )

    def on(self, work: Begun, *destinations: str) -> pb.SetMaintenanceModeResponse:
        request = pb.SetMaintenanceModeRequest(
            maintenance=True, reason="why", destination_uris=destinations
        )
        return self.verb.set_maintenance_mode(request, work)


@pytest.fixture
def bench(tmp_path: Path) -> Callable[..., Bench]:
    return lambda *instances: Bench(tmp_path, *instances)


def instance(
    name: str, state: "types_pb2.PowerState.ValueType", *, managed: bool = True
) -> Instance:
    return Instance(instance_id=name, name=name, power_state=state, managed=managed)


def test_each_instance_has_the_outcome_of_its_state(bench: Callable[..., Bench]) -> None:
    host = bench(
        instance("e", types_pb2.POWER_STATE_RUNNING, managed=False),
        instance("d", types_pb2.POWER_STATE_PAUSED),
        instance("c", types_pb2.POWER_STATE_SUSPENDED),
        instance("b", types_pb2.POWER_STATE_SHUTDOWN),
        instance("a", types_pb2.POWER_STATE_RUNNING),
    )
    result = host.on(Begun(), "grpc://other:1")
    shown = [(found.name, found.outcome, found.error.reason) for found in result.instances]
    assert shown == [
        ("a", ON, "CAPABILITY_MISSING"),
        ("b", OFF, ""),
        ("c", OFF, ""),
        ("d", ON, "CAPABILITY_MISSING"),
        ("e", ON, "FOREIGN_INSTANCE"),
    ]
    assert not result.evacuated
    assert "not here" in result.instances[0].error.message


def test_host_with_nothing_on_is_evacuated(bench: Callable[..., Bench]) -> None:
    host = bench(instance("a", types_pb2.POWER_STATE_SHUTDOWN))
    assert host.on(Begun()).evacuated
    assert host.state.acceptance.maintenance
    assert host.told.details == ["disabled"]


@pytest.mark.parametrize("before", [Acceptance(), Acceptance(enabled=False, disabled_reason="x")])
def test_cancelled_maintenance_leaves_the_host_as_it_was(
    bench: Callable[..., Bench], before: Acceptance
) -> None:
    host, work = bench(), Begun(cancelled=True)
    host.door.accept(before)
    with pytest.raises(CancelledError):
        host.on(work)
    assert host.state.acceptance.maintenance
    for undo in reversed(work.undos):
        host.door.undo(undo.arguments["before"])
    assert host.state.acceptance == before
