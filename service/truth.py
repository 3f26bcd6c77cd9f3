"""The instances of the host as last known, in memory: what reads are served from.

The backend's events keep it up to date and every (re)connect lists it anew;
while the hypervisor is out of reach the facts stay, marked stale. Replies are
put together from instances that are serialised once per change, so a listing
costs a join of bytes. Event loop only.
"""

import time
from bisect import bisect_left, insort
from collections.abc import Mapping, Sequence

from virtrpc.v1 import instance_pb2
from virtrpc.v1.instance_pb2 import Instance, InstanceView
from virtrpc.v1.types_pb2 import Freshness, PowerState

from backends.contract import Sample
from backends.errors import InstanceNotFoundError
from service.errors import StartingError

_ON = (PowerState.POWER_STATE_RUNNING, PowerState.POWER_STATE_PAUSED)


class Record:
    """One instance, and its bytes by view."""

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        self.instance_id = instance.instance_id
        self.hidden = instance.HasField("reclaim_at")
        """Soft-deleted: not in listings."""
        self._bytes: dict[int, bytes] = {}

    def serialised(self, view: "InstanceView.ValueType") -> bytes:
        """The instance as field 1 of a reply."""
        cached = self._bytes.get(view)
        if cached is None:
            shown = viewed(self.instance, view)
            cached = instance_pb2.GetInstanceResponse(instance=shown).SerializeToString()
            self._bytes[view] = cached
        return cached

    def touch(self) -> None:
        """The instance has changed."""
        self._bytes.clear()


def viewed(instance: Instance, view: "InstanceView.ValueType") -> Instance:
    """What a view shows of an instance."""
    if view == InstanceView.INSTANCE_VIEW_FULL:
        return instance
    if view == InstanceView.INSTANCE_VIEW_NAMES:
        return Instance(instance_id=instance.instance_id, name=instance.name)
    shown = Instance()
    shown.CopyFrom(instance)
    shown.ClearField("spec")
    shown.ClearField("effective")
    shown.ClearField("persistent")
    shown.ClearField("shares")
    return shown


class Truth:
    """All instances, ordered by id."""

    def __init__(self) -> None:
        self.stale = True
        self._listed = False
        self._records: dict[str, Record] = {}
        self._ids: list[str] = []
        self._operations: dict[str, dict[str, None]] = {}
        self._observed_at_ns = 0

    def __len__(self) -> int:
        """How many there are."""
        return len(self._ids)

    def __contains__(self, instance_id: str) -> bool:
        """Whether there is an instance of that id."""
        return instance_id in self._records

    def get(self, instance_id: str) -> Record:
        """One instance; raises InstanceNotFoundError, or StartingError before the first listing."""
        try:
            return self._records[instance_id]
        except KeyError:
            if not self._listed:
                raise StartingError("instances were not listed yet") from None
            raise InstanceNotFoundError(instance_id) from None

    def manages(self, instance_id: str) -> bool:
        """Whether there is such an instance, and it is the service's. Callable from any thread."""
        record = self._records.get(instance_id)
        return record is not None and record.instance.managed

    def is_on(self, instance_id: str) -> bool:
        """Whether an instance is running or paused here."""
        record = self._records.get(instance_id)
        return record is not None and record.instance.power_state in _ON

    def ordered(self) -> list[Record]:
        """All instances, by id."""
        return [self._records[instance_id] for instance_id in self._ids]

    def all(self) -> Sequence[Instance]:
        """All instances as they are now; not to be kept or changed. Callable from any thread."""
        return [record.instance for record in list(self._records.values())]

    def freshness(self) -> Freshness:
        """How current the facts are now."""
        freshness = Freshness(stale=self.stale)
        freshness.observed_at.FromNanoseconds(
            self._observed_at_ns if self.stale else time.time_ns()
        )
        return freshness

    def replace_all(self, instances: Sequence[Instance]) -> None:
        """The whole truth, read anew."""
        self._listed = True
        known, self._records = self._records, {}
        for instance in instances:
            self._completed(instance, known.get(instance.instance_id))
            self._records[instance.instance_id] = Record(instance)
        self._ids = sorted(self._records)

    def put(self, instance: Instance) -> None:
        """One instance as just read."""
        known = self._records.get(instance.instance_id)
        if known is None:
            insort(self._ids, instance.instance_id)
        self._completed(instance, known)
        self._records[instance.instance_id] = Record(instance)

    def remove(self, instance_id: str) -> None:
        """The instance is gone."""
        if self._records.pop(instance_id, None) is not None:
            del self._ids[bisect_left(self._ids, instance_id)]

    def operation_goes_on(self, instance_id: str, operation_id: str) -> None:
        """The operation has not ended; the oldest one of an instance is told with it."""
        self._operations.setdefault(instance_id, {})[operation_id] = None
        self._tell_operation(instance_id)

    def operation_ended(self, instance_id: str, operation_id: str) -> None:
        """Others of the instance may go on: what waits for its lane, or runs beside it."""
        live = self._operations.get(instance_id, {})
        live.pop(operation_id, None)
        if not live:
            self._operations.pop(instance_id, None)
        self._tell_operation(instance_id)

    def sampled(self, samples: Sequence[Sample], *, at_ns: int) -> None:
        """Live counters of all running instances."""
        for sample in samples:
            record = self._records.get(sample.instance_id)
            if record is not None:
                record.instance.cpu_time_ns = sample.cpu_time_ns
                record.instance.cpu_time_at.FromNanoseconds(at_ns)
                record.touch()

    def connected(self) -> None:
        """Events keep the facts up to date from now on."""
        self.stale = False

    def disconnected(self) -> None:
        """The facts are as old as this moment, until the next connect."""
        if not self.stale:
            self.stale = True
            self._observed_at_ns = time.time_ns()

    def count_by_state(self) -> Mapping[int, int]:
        """How many instances are in each power state."""
        counts: dict[int, int] = {}
        for instance in self.all():
            counts[instance.power_state] = counts.get(instance.power_state, 0) + 1
        return counts

    def _tell_operation(self, instance_id: str) -> None:
        record = self._records.get(instance_id)
        if record is not None:
            record.instance.operation_id = self._operation_of(instance_id)
            record.touch()

    def _operation_of(self, instance_id: str) -> str:
        return next(iter(self._operations.get(instance_id, ())), "")

    def _completed(self, instance: Instance, known: Record | None) -> None:
        """Adds what only the daemon knows: the running operation and the last sample."""
        instance.operation_id = self._operation_of(instance.instance_id)
        if known is not None and not instance.cpu_time_ns and known.instance.cpu_time_ns:
            instance.cpu_time_ns = known.instance.cpu_time_ns
            instance.cpu_time_at.CopyFrom(known.instance.cpu_time_at)
