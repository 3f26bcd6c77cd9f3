"""What a backend brings to a live migration. All methods block, and raise ContractError."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum

from virtrpc.v1 import migration_pb2 as pb
from virtrpc.v1.event_pb2 import EventType
from virtrpc.v1.instance_pb2 import Instance
from virtrpc.v1.spec_pb2 import InstanceSpec

from backends.console_log import ConsoleLog
from backends.errors import ContractError
from backends.images import ImageStore
from backends.migration.book import Migration
from backends.migration.connections import Connections
from backends.work import Work


class Guest(Enum):
    """What became of a guest at its source, as the hypervisor there says."""

    ALIVE = "alive"
    """It runs, or is paused and could go on at once."""
    STUCK = "stuck"
    """It has stood still since its last memory went over, and nobody sees to it."""
    BROKEN = "broken"
    """It has gone on at the destination, and memory that it lacks there is only here."""
    OFF = "off"
    """It is known, and its machine has ended."""
    GONE = "gone"
    """It is not known any more."""


def _nothing() -> None:
    """What is done where nobody asked to be told."""


@dataclass(kw_only=True)
class Counters:
    """How a transfer stands, or what it came to."""

    memory: pb.MigrationCounter = field(default_factory=pb.MigrationCounter)
    disk: pb.MigrationCounter = field(default_factory=pb.MigrationCounter)
    dirty_rate_bytes_per_s: int = 0
    transfer_rate_bytes_per_s: int = 0
    iteration: int = 0
    downtime_ms: int | None = None
    """Expected while it runs, measured when it has ended; None: not known."""
    throttle_percent: int = 0
    post_copy: bool = False


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """The moving of one guest."""

    migration: Migration
    options: pb.LiveMigrationOptions
    hypervisor_uri: str
    migration_uri: str
    """Empty: the hypervisors agree on one."""
    left: Callable[[], None] = _nothing
    """To be called, on any thread, when the guest's machine here has ended; may block."""

    @property
    def data(self) -> pb.MigrationData:
        """What the steps before have found out."""
        return self.migration.data


class MigrationDriver(ABC):
    """A hypervisor and its host, as they give and take guests."""

    images: ImageStore
    connections: Connections

    def work(self, work: Work, verb: str, instance_id: str) -> Work:  # noqa: ARG002 - see fake
        """The Work of a verb, with what this backend adds to it."""
        return work

    # Either host.

    @abstractmethod
    def describe(self) -> pb.DestinationCheck:
        """This host as a destination, without what its storage and images say."""

    @abstractmethod
    def compare_cpu(self, cpu: pb.ComparedCpu, *, guest: bool) -> pb.CompareCpuResponse:
        """See MigrationService.CompareCpu."""

    @abstractmethod
    def find(self, instance_id: str) -> Instance | None:
        """The instance as the hypervisor knows it."""

    @abstractmethod
    def tell(self, instance_id: str, kind: "EventType.ValueType", detail: str) -> None:
        """Tells the daemon's watchers of the instance's migration."""

    @abstractmethod
    def console(self, instance_id: str) -> ConsoleLog | None:
        """Log of the instance's console here; None where there is none."""

    # The source.

    @abstractmethod
    def source(self, instance: Instance) -> pb.MigrationSource:
        """What a destination is told of an instance."""

    @abstractmethod
    def transfer(self, transfer: Transfer) -> Counters:
        """Moves the guest; returns when it is over, and then it is gone here.

        Raises MigrationFailedError where it is not over; the guest is here as before.
        """

    @abstractmethod
    def mend(self, transfer: Transfer) -> Counters:
        """Joins a transfer again that is BROKEN; else as `transfer`."""

    @abstractmethod
    def counters(self, instance_id: str) -> Counters | None:
        """How the running transfer stands; None where none runs."""

    @abstractmethod
    def abort(self, instance_id: str) -> None:
        """Stops the running transfer, if it still can be; does not wait."""

    @abstractmethod
    def force(self, instance_id: str, *, post_copy: bool) -> None:
        """Makes the running transfer end: by post-copy, or by pausing the guest."""

    @abstractmethod
    def guest(self, instance_id: str) -> Guest:
        """What became of the guest, when no transfer runs any more."""

    @abstractmethod
    def stop_here(self, instance_id: str) -> None:
        """Ends the machine of a guest that is the destination's now. Idempotent."""

    @abstractmethod
    def go_on_here(self, migration: Migration) -> None:
        """Lets a guest that is STUCK go on, unless it was paused before."""

    @abstractmethod
    def give_up(self, migration: Migration) -> None:
        """Removes what is left of a guest that went away; what is shared stays. Idempotent."""

    # The destination.

    @abstractmethod
    def blockers(
        self, instance_id: str, data: pb.MigrationData, spec: InstanceSpec
    ) -> Sequence[ContractError]:
        """What stands in the way of preparing for an instance."""

    @abstractmethod
    def taken(self, source: pb.MigrationSource, instance_id: str) -> Sequence[ContractError]:
        """What of the source's facts the hypervisor here cannot take."""

    @abstractmethod
    def prepare(self, data: pb.MigrationData, spec: InstanceSpec) -> None:
        """Makes ready, and writes into the data where the source finds it."""

    @abstractmethod
    def unprepare(self, migration: Migration) -> None:
        """Undoes prepare, half done as it may be; what is shared stays. Idempotent."""

    @abstractmethod
    def has_arrived(self, migration: Migration, *, alive: bool = False) -> bool:
        """Whether the guest is here now by this very migration; `alive`: with its machine."""

    @abstractmethod
    def start(self, instance_id: str) -> None:
        """Lets a guest go on that has arrived and stands still. Idempotent."""

    @abstractmethod
    def adopt(self, migration: Migration) -> Instance:
        """Makes a guest that has arrived an instance of this host. Idempotent."""
