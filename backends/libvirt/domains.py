"""Domains ↔ instances: looking them up, reading them, telling the daemon what was read.

A domain is read and told under its lock, so the daemon never goes back to an
older fact; an event is told after what it changed was read.
"""

import queue
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack, suppress
from copy import deepcopy
from pathlib import Path

import libvirt
import structlog
from virtrpc.v1.event_pb2 import Event
from virtrpc.v1.instance_pb2 import Instance, MachineState
from virtrpc.v1.spec_pb2 import InstanceSpec
from virtrpc.v1.types_pb2 import PowerState

from backends.contract import Observer
from backends.errors import ContractError, InstanceNotFoundError, TimedOutError
from backends.libvirt.connection import Connection
from backends.libvirt.embedded import EmbeddedRoot
from backends.libvirt.errors import is_gone, translated, translating
from backends.libvirt.instances import POWER_STATES, read_instance
from backends.libvirt.jobs import JobBook
from backends.libvirt.machines import machine_pid
from backends.libvirt.pulls import Pulls
from backends.libvirt.removals import Removals
from backends.libvirt.starts import pid_folder
from backends.libvirt.xml import metadata
from backends.libvirt.xml.element import parse, to_text
from backends.libvirt.xml.metadata import InstanceMetadata
from backends.specification import instance_name, require_managed

_LOCKS = 64
_LAST_READ_S = 2
EventOf = Callable[[], Event | None]
log = structlog.get_logger()


class Domains:
    """All domains of the host. Callable from any thread."""

    def __init__(self) -> None:
        self.observer: Observer | None = None
        self.embedded: EmbeddedRoot | None = None
        """The driver's own folder, where it is embedded."""
        self.told: dict[str, Instance] = {}
        """What the daemon was told last: ids, names, power states and interfaces."""
        self.jobs = JobBook()
        """What ended jobs came to."""
        self._connection: Connection | None = None
        self._pid_folder: Path | None = None
        self._locks = tuple(threading.Lock() for _ in range(_LOCKS))
        self._happened: queue.SimpleQueue[tuple[str, EventOf] | None] = queue.SimpleQueue()
        self._reboots: dict[str, threading.Event] = {}
        self.before_start: Callable[[libvirt.virDomain], None] = _nothing
        """Called with each machine that is about to start."""
        self.removals = Removals()
        """Devices that guests were asked to release."""
        self.pulls = Pulls()
        """Machines whose disks may not be asked about as usual."""
        self.doubtful: Mapping[str, int] = {}
        """Machines, by instance and process, that may have devices which libvirt does not know."""
        self._refresher: threading.Thread | None = None

    def open(
        self, connection: Connection, observer: Observer, *, embedded: EmbeddedRoot | None = None
    ) -> None:
        """Begins to read and tell."""
        self._connection, self.observer, self.embedded = connection, observer, embedded
        self._pid_folder = pid_folder(connection.uri)
        self._refresher = threading.Thread(target=self._refresh, name="refresher", daemon=True)
        self._refresher.start()

    def close(self) -> None:
        """Tells no more."""
        self._happened.put(None)
        if self._refresher is not None:
            self._refresher.join(_LAST_READ_S)

    @property
    def connection(self) -> Connection:
        """The connection; open() was called."""
        assert self._connection is not None  # noqa: S101
        return self._connection

    def find(self, instance_id: str) -> libvirt.virDomain | None:
        """The domain of an instance; None where there is none."""
        try:
            return self.connection.handles.own.lookupByUUIDString(instance_id)
        except libvirt.libvirtError as error:
            if is_gone(error):
                return None
            raise self.failed(error, instance_id) from error

    def find_name(self, name: str) -> libvirt.virDomain | None:
        """The domain of a name; None where there is none."""
        try:
            return self.connection.handles.own.lookupByName(name)
        except libvirt.libvirtError as error:
            if is_gone(error):
                return None
            raise self.failed(error) from error

    def namesakes(self, instance_id: str, spec: InstanceSpec) -> list[Instance]:
        """Instances that have the id, or the name of a specification, already."""
        found = (self.find(instance_id), self.find_name(instance_name(instance_id, spec)))
        instances = []
        for domain in found:
            if domain is not None:
                with suppress(InstanceNotFoundError):  # it has gone meanwhile
                    instances.append(self.read(domain))
        return instances

    def machine_of(self, domain: libvirt.virDomain) -> int | None:
        """Process id of a running machine; None where it is not one of this host's."""
        return machine_pid(self._pid_folder, domain.name(), domain.UUIDString())

    def managed(self, instance_id: str) -> tuple[libvirt.virDomain, Instance]:
        """Domain and facts of an instance that the service may change.

        Raises InstanceNotFoundError, or WrongStateError for a foreign one.
        """
        domain = self.find(instance_id)
        if domain is None:
            raise InstanceNotFoundError(instance_id)
        return domain, require_managed(self.read(domain), instance_id)

    def read(self, domain: libvirt.virDomain) -> Instance:
        """The facts of a domain, as they are now."""
        with translating(domain.UUIDString()):
            return read_instance(domain, pid_folder=self._pid_folder)

    def tell(self, domain: libvirt.virDomain) -> Instance:
        """Reads a domain and tells the daemon before it returns; gives what was read."""
        instance_id = domain.UUIDString()
        with self._locked(instance_id):
            instance = self.read(domain)
            self._tell(instance)
        return instance

    def gone(self, instance_id: str) -> None:
        """Tells the daemon that a domain has been undefined."""
        with self._locked(instance_id):
            self._tell_gone(instance_id)

    def happened(self, instance_id: str, event_of: EventOf) -> None:
        """Something happened to a domain: it is read, and told with the event that `event_of` then
        gives. Does not block.
        """
        self._happened.put((instance_id, event_of))

    def reboot_of(self, instance_id: str) -> threading.Event:
        """An event that is set at the next reset of the guest."""
        return self._reboots.setdefault(instance_id, threading.Event())

    def rebooted(self, instance_id: str) -> None:
        """The guest was reset."""
        waiting = self._reboots.pop(instance_id, None)
        if waiting is not None:
            waiting.set()

    def own(self, domain: libvirt.virDomain) -> InstanceMetadata:
        """The service's own facts of a domain that it made."""
        with translating(domain.UUIDString()):
            node = parse(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))
        own = metadata.find_in(node)
        if own is None:
            raise InstanceNotFoundError(domain.UUIDString())
        return own

    def save_own(self, domain: libvirt.virDomain, own: InstanceMetadata) -> None:
        """Writes the service's own facts, into the running domain too."""
        try:
            flags = libvirt.VIR_DOMAIN_AFFECT_CONFIG
            if domain.isActive():
                flags |= libvirt.VIR_DOMAIN_AFFECT_LIVE
            domain.setMetadata(
                libvirt.VIR_DOMAIN_METADATA_ELEMENT,
                to_text(metadata.to_node(own, bare=True)),
                metadata.PREFIX,
                metadata.NAMESPACE,
                flags,
            )
        except libvirt.libvirtError as error:
            raise self.failed(error, domain.UUIDString()) from error

    def amend_own(
        self, domain: libvirt.virDomain, change: Callable[[InstanceMetadata], None]
    ) -> None:
        """Changes the service's own facts; nobody else's change is lost by it."""
        with self._locked(domain.UUIDString()):
            own = self.own(domain)
            before = deepcopy(own)
            change(own)
            if own != before:
                self.save_own(domain, own)

    def note_devices(self, domain: libvirt.virDomain) -> None:
        """Has libvirt write down which devices a running domain has.

        It does not where a device was found gone when it asked for it, and then ends
        the guest at its own next start: QEMU does not know the backend that it wants to remove
        (cut_off.py, for the embedded driver alone).
        """
        with self._locked(domain.UUIDString()):
            self.save_own(domain, self.own(domain))

    def require_known(self, instance_id: str) -> None:
        """Raises DEVICE_NOT_RELEASED where a machine may have more devices than libvirt says.

        For who undoes an attachment, and does not find the device.
        """
        pid, domain = self.doubtful.get(instance_id), self.find(instance_id)
        if pid is not None and domain is not None and self.machine_of(domain) == pid:
            why = "the guest may still have the device, which the hypervisor does not know"
            raise TimedOutError(f"{why}: power it off", reason="DEVICE_NOT_RELEASED")

    def want(self, domain: libvirt.virDomain, state: "PowerState.ValueType") -> None:
        """Notes the power state that an instance should have after a restart of the host."""
        self.amend_own(domain, lambda own: setattr(own, "wanted", state))

    def start(self, domain: libvirt.virDomain, flags: int = 0) -> None:
        """Starts a machine; what the host must have ready for it comes first.

        Raises libvirt.libvirtError, and what `before_start` does.
        """
        self.before_start(domain)
        domain.createWithFlags(flags)

    def read_all(self) -> list[Instance]:
        """The facts of every domain, as they are now."""
        instances = []
        with translating():
            for domain in self.connection.handles.own.listAllDomains():
                try:
                    instances.append(read_instance(domain, pid_folder=self._pid_folder))
                except libvirt.libvirtError as error:
                    if not is_gone(error):
                        raise
        return instances

    def tell_all(self) -> None:
        """Reads every domain and tells the daemon the whole truth.

        Nothing else is told meanwhile: the list would take it back.
        """
        with ExitStack() as held:
            for lock in self._locks:
                held.enter_context(lock)
            instances = self.read_all()
            self.told = {instance.instance_id: _state_of(instance) for instance in instances}
            if self.observer is not None:
                self.observer.instances_listed(instances)

    def failed(self, error: libvirt.libvirtError, instance_id: str = "") -> ContractError:
        """Error of the contract for a failed call; a lost connection is seen to."""
        self.connection.suspect(error)
        return translated(error, instance_id)

    def _locked(self, instance_id: str) -> AbstractContextManager[bool]:
        return self._locks[hash(instance_id) % _LOCKS]

    def _refresh(self) -> None:
        while (happened := self._happened.get()) is not None:
            instance_id, event_of = happened
            try:
                self._refresh_one(instance_id, event_of)
                continue
            except ContractError as error:
                # The connection has gone; everything is read anew when it is back.
                log.debug("domain not read", instance_id=instance_id, reason=str(error))
            except Exception:
                # One domain that cannot be understood must not silence all others.
                log.exception("defect: domain not read", instance_id=instance_id)
            event = event_of()
            if event is not None and self.observer is not None:
                self.observer.event(event)

    def _refresh_one(self, instance_id: str, event_of: EventOf) -> None:
        with self._locked(instance_id):
            domain = self.find(instance_id)
            try:
                instance = None if domain is None else self.read(domain)
            except InstanceNotFoundError:
                instance = None
            if instance is None:
                self._tell_gone(instance_id, event_of)
            else:
                self._tell(instance, event_of)

    def _tell(self, instance: Instance, event_of: EventOf = lambda: None) -> None:
        self.told[instance.instance_id] = _state_of(instance)
        if self.observer is not None:
            self.observer.instance_changed(_copy(instance), event_of())

    def _tell_gone(self, instance_id: str, event_of: EventOf = lambda: None) -> None:
        self.told.pop(instance_id, None)
        if self.observer is not None:
            self.observer.instance_gone(instance_id, event_of())


def _nothing(_domain: libvirt.virDomain) -> None:
    """What a machine needs before it starts, where it needs nothing."""


def is_active(domain: libvirt.virDomain) -> bool:
    """Whether a domain's machine exists: running, paused or crashed."""
    with translating(domain.UUIDString()):
        return bool(domain.isActive())


def power_state(domain: libvirt.virDomain) -> int:
    """The PowerState of a domain, now."""
    with translating(domain.UUIDString()):
        state, _ = domain.state()
        return POWER_STATES[state]


def _state_of(instance: Instance) -> Instance:
    return Instance(
        instance_id=instance.instance_id,
        name=instance.name,
        power_state=instance.power_state,
        power_state_reason=instance.power_state_reason,
        persistent=MachineState(interfaces=instance.persistent.interfaces),
        effective=MachineState(interfaces=instance.effective.interfaces),
    )


def _copy(instance: Instance) -> Instance:
    copy = Instance()
    copy.CopyFrom(instance)
    return copy
