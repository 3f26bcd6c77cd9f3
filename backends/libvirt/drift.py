"""Power states that changed and nobody said so: found by looking, told as DRIFTED.

libvirt tells no event of a guest whose process it finds dead when its own driver
comes back, as the embedded one does at every start of the daemon. Two looks in a
row must disagree with what was told: the first may only be ahead of its event.
"""

from collections.abc import Mapping
from functools import partial

from virtrpc.v1.event_pb2 import Event, EventType
from virtrpc.v1.types_pb2 import PowerState

from backends.events import event_of
from backends.libvirt.domains import Domains

_ACTIVE = frozenset({PowerState.POWER_STATE_RUNNING, PowerState.POWER_STATE_PAUSED})
States = Mapping[str, "PowerState.ValueType"]


class Drift:
    """Compares looks with what was told. Looks come one after the other."""

    def __init__(self, domains: Domains) -> None:
        self._domains = domains
        self._suspects: frozenset[str] = frozenset()
        self._being_read: set[str] = set()

    def look(self, active: States) -> None:
        """`active` are the states of all domains that have a machine now."""
        told = dict(self._domains.told)
        ended = {i for i, instance in told.items() if instance.power_state in _ACTIVE} - set(active)
        other = {i for i, state in active.items() if i in told and told[i].power_state != state}
        wrong = frozenset(ended | other) - self._being_read
        for instance_id in wrong & self._suspects:
            before = told[instance_id].power_state
            self._being_read.add(instance_id)
            self._domains.happened(instance_id, partial(self._drifted, instance_id, before))
        self._suspects = wrong - self._suspects

    def _drifted(self, instance_id: str, before: "PowerState.ValueType") -> Event | None:
        """It has been read again: what is to be told, where that made a difference."""
        self._being_read.discard(instance_id)
        now = self._domains.told.get(instance_id)
        if now is None or now.power_state == before:
            return None
        return event_of(EventType.EVENT_TYPE_DRIFTED, now, now.power_state_reason)
