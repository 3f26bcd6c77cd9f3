"""One domain that cannot be read silences no other."""

import threading

import pytest
from virtrpc.v1.event_pb2 import EventType
from virtrpc.v1.instance_pb2 import Instance

from backends.errors import UnreachableError

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
    """Remembers nothing: only events matter here."""

    def instances_listed(self, instances: object) -> None: ...
    def instance_changed(self, instance: Instance) -> None: ...
    def instance_gone(self, instance_id: str) -> None: ...
    def connected(self) -> None: ...
    def disconnected(self, reason: str) -> None: ...
    def event(
        self, kind: "EventType.ValueType", *, instance: Instance | None = None, detail: str = ""
    ) -> None: ...


@pytest.mark.parametrize("error", [UnreachableError("lost"), ValueError("not an XML of ours")])
def test_event_is_told_though_its_domain_cannot_be_read(error: Exception) -> None:
    from backends.libvirt.domains import Domains

    domains = Domains()
    domains.open(BrokenConnection(error, error), Told())  # type: ignore[arg-type]
    told = threading.Semaphore(0)
    for _ in range(2):
        domains.happened(INSTANCE_ID, told.release)
    assert told.acquire(timeout=WAIT_S)
    assert told.acquire(timeout=WAIT_S)
    domains.close()
