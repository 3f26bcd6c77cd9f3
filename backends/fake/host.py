"""The fake hypervisor: its instances, their power states and consoles.

SHUTDOWN ──start──▶ RUNNING ──pause──▶ PAUSED
    ▲                 │  ▲                │
    ╰────── off ──────╯  ╰───unpause──────╯
"""

import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from virtrpc.v1.event_pb2 import EventType
from virtrpc.v1.instance_pb2 import Instance
from virtrpc.v1.spec_pb2 import InstanceSpec
from virtrpc.v1.types_pb2 import PowerState

from backends.console_log import ConsoleLog
from backends.contract import Observer, Sample
from backends.errors import InstanceNotFoundError, WrongStateError
from backends.events import event_of
from backends.fake.counters import fake_sample
from backends.fake.faults import FaultyWork
from backends.fake.lines import Lines
from backends.fake.machines import new_instance
from backends.fake.volume_chains import VolumeChains
from backends.plan import InstancePlan
from backends.specification import existing, require_managed
from backends.work import Work


class FakeHost:
    """All instances. Callable from any thread; changes are made under one lock."""

    def __init__(self, folder: Path, rules: dict[str, str]) -> None:
        self.folder = folder
        self.rules = rules
        self.observer: Observer | None = None
        self.lines = Lines()
        """Open connections to consoles."""
        self.chains = VolumeChains()
        """Files of volumes."""
        self._lock = threading.RLock()
        self._instances: dict[str, Instance] = {}
        self._started_ns: dict[str, int] = {}
        self._foreign: dict[str, InstanceSpec] = {}

    def reset(self) -> None:
        """An empty host."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)

    def instances(self) -> list[Instance]:
        """All instances, as copies."""
        with self._lock:
            return [_copy(instance) for instance in self._instances.values()]

    def find(self, instance_id: str) -> Instance | None:
        """A copy of an instance, if there is one."""
        with self._lock:
            instance = self._instances.get(instance_id)
            return None if instance is None else _copy(instance)

    def get(self, instance_id: str) -> Instance:
        """A copy of an instance; raises InstanceNotFoundError."""
        return require_managed(self.find(instance_id), instance_id)

    def faulty(self, work: Work, verb: str, instance: Instance | None) -> FaultyWork:
        """The Work of a verb with the faults that were asked for."""
        labels = instance.labels if instance is not None else {}
        return FaultyWork(work, verb, self.rules, dict(labels))

    def instance_folder(self, instance_id: str) -> Path:
        """Where the files of an instance are."""
        return self.folder / instance_id

    def define(self, plan: InstancePlan) -> None:
        """Makes an instance known; it is off.

        Raises AlreadyExistsError where its name was taken since the checks.
        """
        instance = new_instance(plan, self.instance_folder(plan.instance_id))
        with self._lock:
            existing(plan.instance_id, plan.spec, self._instances.values())
            self._instances[plan.instance_id] = instance
        self._changed(plan.instance_id, EventType.EVENT_TYPE_CREATED)

    def arrive(self, instance: Instance) -> Instance:
        """Takes in an instance that ran elsewhere, as it was there."""
        instance_id, folder = instance.instance_id, self.instance_folder(instance.instance_id)
        instance.power_state_reason = "migrated"
        folder.mkdir(exist_ok=True)
        with self._lock:
            self._instances[instance_id] = _copy(instance)
            self._started_ns[instance_id] = time.monotonic_ns()
        self.print_line(instance_id, f"virtrpc fake guest {instance.name} migrated here")
        self._changed(instance_id, EventType.EVENT_TYPE_STARTED, "migrated")
        return self.get(instance_id)

    def remove_folder(self, instance_id: str) -> None:
        """Removes the files of an instance; nothing where there are none."""
        shutil.rmtree(self.instance_folder(instance_id), ignore_errors=True)

    def undefine(self, instance_id: str) -> None:
        """Forgets an instance; nothing where there is none."""
        with self._lock:
            instance = self._instances.pop(instance_id, None)
            self._foreign.pop(instance_id, None)
        self.chains.forget(instance_id)
        if instance is not None and self.observer is not None:
            deleted = event_of(EventType.EVENT_TYPE_DELETED, instance)
            self.observer.instance_gone(instance_id, deleted)

    def disown(self, instance_id: str) -> None:
        """Makes an instance one that the service did not make; nothing where there is none."""
        with self._lock:
            known = self._instances.get(instance_id)
            if known is None:
                return
            self._foreign.setdefault(instance_id, _copy(known).spec)
        with self.edit(instance_id) as instance:
            instance.managed = False
            for field in ("spec", "labels", "metadata", "created_at"):
                instance.ClearField(field)

    def machine_spec(self, instance_id: str) -> InstanceSpec:
        """What a foreign instance was made from, which nobody wrote down."""
        with self._lock:
            return self._foreign[instance_id]

    def adopt(self, instance_id: str, spec: InstanceSpec) -> None:
        """Makes a foreign instance one of the service's own."""
        with self.edit(instance_id) as instance:
            instance.managed = True
            instance.spec.CopyFrom(spec)
            instance.labels.update(spec.labels)
            instance.metadata.update(spec.metadata)

    def start(self, instance_id: str) -> None:
        """Boots an instance: its console says so."""
        with self._changing(instance_id, EventType.EVENT_TYPE_STARTED, "booted") as instance:
            instance.power_state = PowerState.POWER_STATE_RUNNING
            instance.power_state_reason = "booted"
            instance.started_at.GetCurrentTime()
            instance.effective.CopyFrom(instance.persistent)
            self._started_ns[instance_id] = time.monotonic_ns()
        self.print_boot(instance_id)

    def power_on(self, instance_id: str) -> None:
        """Undo of a stop: starts an instance that is off; nothing where it is unknown."""
        instance = self.find(instance_id)
        if instance is not None and instance.power_state == PowerState.POWER_STATE_SHUTDOWN:
            self.start(instance_id)

    def stop(self, instance_id: str, reason: str) -> None:
        """Switches an instance off; nothing where it is."""
        with self._lock:
            instance = self._instances.get(instance_id)
            if instance is None or instance.power_state == PowerState.POWER_STATE_SHUTDOWN:
                return
        with self._changing(instance_id, EventType.EVENT_TYPE_STOPPED, reason) as instance:
            instance.power_state = PowerState.POWER_STATE_SHUTDOWN
            instance.power_state_reason = reason
            instance.ClearField("started_at")
            instance.ClearField("thaw_at")
            instance.ClearField("effective")
        self.lines.hang_up(instance_id)

    def pause(self, instance_id: str) -> None:
        """Stops the vCPUs."""
        with self._changing(instance_id, EventType.EVENT_TYPE_PAUSED, "user") as instance:
            instance.power_state = PowerState.POWER_STATE_PAUSED
            instance.power_state_reason = "user"

    def unpause(self, instance_id: str) -> None:
        """Lets the vCPUs run on."""
        with self._changing(instance_id, EventType.EVENT_TYPE_RESUMED, "unpaused") as instance:
            instance.power_state = PowerState.POWER_STATE_RUNNING
            instance.power_state_reason = "unpaused"

    def suspend(self, instance_id: str) -> None:
        """Saves the memory and frees it."""
        with self._changing(instance_id, EventType.EVENT_TYPE_SUSPENDED, "saved") as instance:
            instance.power_state = PowerState.POWER_STATE_SUSPENDED
            instance.power_state_reason = "saved"
            instance.ClearField("started_at")
            instance.ClearField("effective")
        self.lines.hang_up(instance_id)

    def resume(self, instance_id: str) -> None:
        """Back as it was: the guest does not boot."""
        with self._changing(instance_id, EventType.EVENT_TYPE_STARTED, "restored") as instance:
            instance.power_state = PowerState.POWER_STATE_RUNNING
            instance.power_state_reason = "restored"
            instance.started_at.GetCurrentTime()
            instance.effective.CopyFrom(instance.persistent)

    @contextmanager
    def edit(self, instance_id: str) -> Iterator[Instance]:
        """Changes facts of an instance that are not its power state."""
        with self._changing(instance_id, EventType.EVENT_TYPE_UPDATED, "") as instance:
            yield instance

    def device_changed(self, instance_id: str, kind: "EventType.ValueType", alias: str) -> None:
        """Tells that a device has come or gone."""
        self._changed(instance_id, kind, alias)

    def reset_machine(self, instance_id: str) -> None:
        """Restarts a running guest in its machine."""
        with self._changing(instance_id, EventType.EVENT_TYPE_REBOOTED, "reset") as instance:
            instance.power_state = PowerState.POWER_STATE_RUNNING
        self.print_boot(instance_id)

    def print_boot(self, instance_id: str) -> None:
        """What a guest prints when it boots."""
        name = self.get(instance_id).name
        self.print_line(instance_id, f"virtrpc fake guest {name} booting")
        self.print_line(instance_id, f"virtrpc guest ready {name} uptime=0.00")

    def print_line(self, instance_id: str, line: str) -> None:
        """A line on the serial console."""
        self.print_bytes(instance_id, f"{line}\r\n".encode())

    def print_bytes(self, instance_id: str, data: bytes) -> None:
        """Bytes on the serial console."""
        folder = self.instance_folder(instance_id)
        log = ConsoleLog.found_in(folder) or ConsoleLog.new(folder)
        with log.path.open("ab") as console:
            console.write(data)

    def samples(self) -> list[Sample]:
        """Counters of running instances."""
        return [
            self._sample(instance)
            for instance in self.instances()
            if instance.power_state == PowerState.POWER_STATE_RUNNING
        ]

    def sample_one(self, instance_id: str) -> Sample:
        """Counters of one running instance; raises WrongStateError where it is off."""
        instance = self.find(instance_id)
        if instance is None:
            raise InstanceNotFoundError(instance_id)
        if not instance.HasField("effective"):
            raise WrongStateError("the instance is off: it has no counters")
        return self._sample(instance)

    def _sample(self, instance: Instance) -> Sample:
        uptime_ns = time.monotonic_ns() - self._started_ns[instance.instance_id]
        return fake_sample(instance, uptime_ns=uptime_ns)

    @contextmanager
    def _changing(
        self, instance_id: str, kind: "EventType.ValueType", detail: str
    ) -> Iterator[Instance]:
        with self._lock:
            instance = self._instances.get(instance_id)
            if instance is None:
                raise InstanceNotFoundError(instance_id)
            yield instance
        self._changed(instance_id, kind, detail)

    def _changed(self, instance_id: str, kind: "EventType.ValueType", detail: str = "") -> None:
        instance = self.find(instance_id)
        if instance is not None and self.observer is not None:
            self.observer.instance_changed(instance, event_of(kind, instance, detail))


def _copy(instance: Instance) -> Instance:
    copy = Instance()
    copy.CopyFrom(instance)
    return copy
