"""What libvirt does not say, or says of a domain that cannot be read, stays no secret."""

import threading

import pytest
from virtrpc.v1.event_pb2 import EVENT_TYPE_DRIFTED, EVENT_TYPE_STARTED, Event
from virtrpc.v1.instance_pb2 import Instance
from virtrpc.v1.types_pb2 import (
    POWER_STATE_CRASHED,
    POWER_STATE_PAUSED,
    POWER_STATE_RUNNING,
    PowerState,
)

from backends.errors import UnreachableError
from backends.libvirt.domains import Domains, EventOf
from backends.libvirt.drift import Drift

pytestmark = pytest.mark.libvirt
INSTANCE_ID = "11111111-1111-4111-8111-111111111111"
WAIT_S = 10.0


class BrokenConnection:
    """Raises the next of its errors whenever it is asked for handles."""

    uri = "qemu:///embed?root=/nowhere"

    def __init__(self, *errors: Exception) -> None:
        self._errors = list(errors)

    @property
    def handles(self) -> object:
        raise self._errors.pop(0)


class Told:
    """Remembers the events; facts do not matter here."""

    def __init__(self) -> None:
        self.events: list[tuple[int, int]] = []
        self.told = threading.Semaphore(0)

    def instances_listed(self, instances: object) -> None: ...
    def instance_gone(self, instance_id: str, event: Event | None = None) -> None: ...
    def connected(self) -> None: ...
    def disconnected(self, reason: str) -> None: ...

    def instance_changed(self, instance: Instance, event: Event | None = None) -> None:
        assert instance.instance_id == INSTANCE_ID
        if event is not None:
            self.event(event)

    def event(self, event: Event) -> None:
        self.events.append((event.type, event.power_state))
        self.told.release()


class OneDomain(Domains):
    """One domain; `real` is its power state, whatever was told of it."""

    def __init__(self) -> None:
        super().__init__()
        self.real: PowerState.ValueType = POWER_STATE_RUNNING
        self.seen = Told()
        self.open(BrokenConnection(), self.seen)  # type: ignore[arg-type]
        self.reads_it()

    def reads_it(self) -> None:
        """As after an event."""
        self.told[INSTANCE_ID] = Instance(instance_id=INSTANCE_ID, power_state=self.real)

    def _refresh_one(self, instance_id: str, event_of: EventOf) -> None:
        assert instance_id == INSTANCE_ID
        self.reads_it()
        self.seen.instance_changed(self.told[instance_id], event_of())


@pytest.mark.parametrize("error", [UnreachableError("lost"), ValueError("not an XML of ours")])
def test_event_is_told_though_its_domain_cannot_be_read(error: Exception) -> None:
    domains, seen = Domains(), Told()
    domains.open(BrokenConnection(error, error), seen)  # type: ignore[arg-type]
    for _ in range(2):
        domains.happened(INSTANCE_ID, lambda: Event(type=EVENT_TYPE_STARTED))
    assert seen.told.acquire(timeout=WAIT_S)
    assert seen.told.acquire(timeout=WAIT_S)
    domains.close()


def test_end_that_nobody_told_is_found_and_told_once() -> None:
    domains = OneDomain()
    drift = Drift(domains)
    drift.look({INSTANCE_ID: POWER_STATE_RUNNING})
    domains.real = POWER_STATE_CRASHED
    for _ in range(5):
        drift.look({})
    domains.close()
    assert domains.seen.events == [(EVENT_TYPE_DRIFTED, POWER_STATE_CRASHED)]


def test_change_of_state_that_nobody_told_is_found() -> None:
    domains = OneDomain()
    domains.real = POWER_STATE_PAUSED
    drift = Drift(domains)
    for _ in range(2):
        drift.look({INSTANCE_ID: POWER_STATE_PAUSED})
    domains.close()
    assert domains.seen.events == [(EVENT_TYPE_DRIFTED, POWER_STATE_PAUSED)]


def test_look_that_is_ahead_of_its_event_is_no_drift() -> None:
    domains = OneDomain()
    drift = Drift(domains)
    domains.real = POWER_STATE_CRASHED
    drift.look({})
    domains.reads_it()
    for _ in range(3):
        drift.look({})
    domains.close()
    assert domains.seen.events == []
