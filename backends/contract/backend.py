"""A backend as a whole, and what it tells the daemon by itself."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

from virtrpc.v1 import host_pb2
from virtrpc.v1.diagnostics_pb2 import InstanceDiagnostics
from virtrpc.v1.event_pb2 import Event
from virtrpc.v1.instance_pb2 import Instance

from backends.console_log import ConsoleLog
from backends.contract.consoles import Consoles
from backends.images import ImageStore, ImageUsers
from backends.migration.book import MigrationBook
from backends.migration.receiving import Receptions
from backends.work import Undo

UndoActions = Mapping[str, Callable[[str], object]]
"""How steps are undone, by the name in their `Undo`; each takes the one argument that is there."""


class Facet(ABC):  # noqa: B024 - the verbs are its subclasses' abstract methods
    """A group of verbs that a backend implements together or not at all."""

    undo: UndoActions = MappingProxyType({})
    """For the steps of its verbs. Names are of the backend as a whole: journals have them."""


def undo_actions(facets: Iterable[Facet]) -> UndoActions:
    """Those of all facets; raises ValueError where two have the same name."""
    actions: dict[str, Callable[[str], object]] = {}
    for facet in facets:
        for name, action in facet.undo.items():
            if name in actions:
                raise ValueError(f"two undo actions are named {name!r}")
            actions[name] = action
    return actions


@dataclass(frozen=True, kw_only=True)
class HypervisorFacts:
    """What the start-up probe found."""

    hypervisor_type: str
    """E.g. "QEMU", or "fake"."""
    hypervisor_version: str
    """E.g. "7.2.22"."""
    library: str
    """Library by which it is driven, e.g. "libvirt"; empty where none is."""
    library_version: str
    """Its version, e.g. "9.0.0"."""
    connection: str
    """Kind of the connection, e.g. "qemu:///embed"."""
    virt_type: str
    """"kvm", "qemu" or "fake"."""
    virt_type_reason: str
    """Why that and not another, one sentence."""
    missing: Mapping[str, str]
    """Capabilities of verbs that a facet implements and the probe found missing → why."""
    features: Mapping[str, str]
    """Features beyond verbs, e.g. "uefi" → why it is missing here; "": it is there."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Live counters of one instance at one moment."""

    instance_id: str
    cpu_time_ns: int
    diagnostics: InstanceDiagnostics
    """All counters that the hypervisor keeps; those it could not be asked for are unset."""


@dataclass(frozen=True, kw_only=True)
class HostSample:
    """What the host has for instances and what of it is used, at one moment."""

    node: host_pb2.GetAvailableResourceResponse
    """All but the node's name and id, the hypervisor and the freshness."""
    guest_cpu_features: frozenset[str] = frozenset()
    """CPU features that guests can be given, by libvirt's names."""


class Observer(Protocol):
    """Who listens to a backend. Callable from any thread; never blocks."""

    def instances_listed(self, instances: Sequence[Instance]) -> None:
        """The whole truth, read anew after a (re)connect: what is not in it is gone."""

    def instance_changed(self, instance: Instance, event: Event | None = None) -> None:
        """The facts of one instance, as just read, and what has made them so: nobody is shown
        the one without the other.
        """

    def instance_gone(self, instance_id: str, event: Event | None = None) -> None:
        """The hypervisor no longer knows the instance; as `instance_changed`."""

    def event(self, event: Event) -> None:
        """Something happened that changes no facts, or whose facts cannot be read."""

    def connected(self) -> None:
        """The hypervisor is in reach; `instances_listed` was called before."""

    def disconnected(self, reason: str) -> None:
        """The hypervisor is out of reach: known facts are stale from here on."""


class Backend(ABC):
    """A hypervisor. All methods may block and are called on worker threads."""

    name: str
    """By which `--backend` chooses it."""
    image_store: ImageStore
    """The host's images, whose reads and streams are the daemon's own verbs."""
    image_users: ImageUsers
    """Finds out which instances use them."""
    consoles: Consoles
    """Ways to the consoles of running machines, which the daemon's own verbs carry bytes over."""
    migrations: MigrationBook
    """What this host knows of migrations, which the daemon's own verbs watch."""
    receptions: Receptions
    """Where disks of cold migrations arrive, which a stream of the daemon's own brings."""

    @abstractmethod
    def open(self, observer: Observer) -> HypervisorFacts:
        """Connects, probes, and tells the observer every instance there is.

        Raises UnreachableError where the hypervisor cannot be reached.
        """

    @abstractmethod
    def close(self) -> None:
        """Lets go of the hypervisor; guests run on."""

    @abstractmethod
    def facets(self) -> Sequence[Facet]:
        """Groups of verbs that this backend implements."""

    @abstractmethod
    def undo(self, undo: Undo) -> None:
        """Undoes a step of a failed, cancelled or interrupted verb; idempotent."""

    @abstractmethod
    def settle(self) -> None:
        """Asks other hosts once for what they are still owed; called again and again."""

    @abstractmethod
    def break_off(self, instance_id: str) -> None:
        """Makes calls return that hang about an instance's machine, by ending it.

        Only called for an instance that is about to be destroyed; idempotent.
        """

    @abstractmethod
    def sample(self) -> Sequence[Sample]:
        """Counters of all running instances, by bulk calls that no guest can hold up."""

    @abstractmethod
    def sample_one(self, instance_id: str) -> Sample:
        """Counters of one running instance, of this moment.

        Raises InstanceNotFoundError, or WrongStateError where it is off.
        """

    @abstractmethod
    def sample_host(self, instances: Iterable[Instance]) -> HostSample:
        """What the host has and, of these instances, what they take of it.

        No call for a single instance: what they take is in their facts.
        """

    @abstractmethod
    def console_log(self, instance_id: str) -> ConsoleLog:
        """Log of an instance's serial console.

        Raises InstanceNotFoundError where neither instance nor log exists.
        """
