"""What a backend brings to a cold migration, beside MigrationDriver. All methods block, and
raise ContractError."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from virtrpc.v1 import migration_pb2 as pb
from virtrpc.v1.instance_pb2 import Instance
from virtrpc.v1.spec_pb2 import BlockDevice, InstanceSpec

from backends.errors import ContractError
from backends.migration.book import Migration
from backends.plan import InstancePlan
from backends.work import Work


@dataclass(frozen=True, kw_only=True)
class Parcel:
    """A file that goes to another host."""

    disk: pb.MigrationDisk
    path: Path
    head: bytes = b""
    """What goes instead of its first bytes."""


@dataclass(frozen=True, kw_only=True)
class Arrival:
    """An instance that is to be made of what a migration has brought, or kept."""

    migration: Migration
    spec: InstanceSpec
    power_on: bool
    begun: Callable[[], None]
    """Called when something is about to change."""
    done: Callable[[], None]
    """Called just before its point of no return."""
    blockers: Sequence[ContractError] = ()
    """What stands in the way of it in the instance."""

    @property
    def instance_id(self) -> str:
        """The instance, a UUID."""
        return self.migration.instance_id


class ColdDriver(ABC):
    """A hypervisor and its host, as they move instances that are off."""

    # The source.

    @abstractmethod
    def volumes(self, instance_id: str) -> Sequence[BlockDevice]:
        """The volumes that an instance has, without secrets; those of which enough is known."""

    @abstractmethod
    def state(self, instance: Instance) -> Sequence[pb.MigrationDisk]:
        """Files of its machine that go along beside its disks (see state_files)."""

    @abstractmethod
    def unmoved(self, instance: Instance) -> Sequence[ContractError]:
        """What of an instance cannot go to another host."""

    @abstractmethod
    def shut_down(self, instance_id: str, *, timeout_s: float, retry_s: float, work: Work) -> bool:
        """Switches a guest off; whether it was forced. Nothing where it is off."""

    @abstractmethod
    def start(self, instance_id: str) -> None:
        """Starts an instance; nothing where it runs."""

    @abstractmethod
    def bar(self, instance_id: str, migration_id: str) -> None:
        """Keeps an instance from being started, in the name of a migration; empty: no more."""

    @abstractmethod
    def parcel(self, data: pb.MigrationData, disk: pb.MigrationDisk, work: Work) -> Parcel:
        """The file of a disk, as the destination is to get it."""

    @abstractmethod
    def forget_parcels(self, instance_id: str) -> None:
        """Removes files that were only made to be sent. Idempotent."""

    @abstractmethod
    def release(self, instance_id: str) -> None:
        """Gives up the host's side of interfaces and volumes. Idempotent."""

    @abstractmethod
    def take_back(self, instance_id: str) -> None:
        """What both hosts share is this one's again. Idempotent."""

    # One host.

    @abstractmethod
    def resize_blockers(self, instance: Instance, plan: InstancePlan) -> Sequence[ContractError]:
        """What stands in the way of another flavor on this host."""

    @abstractmethod
    def keep(self, instance_id: str, work: Work) -> None:
        """Keeps definition and files as they are, and goes on with copies of the files."""

    @abstractmethod
    def put_back(self, instance_id: str) -> None:
        """Makes the instance what was kept, off; nothing where nothing was. Idempotent."""

    @abstractmethod
    def undo_resize(self, instance_id: str) -> None:
        """Undoes `resize` but for the files. Idempotent."""

    @abstractmethod
    def forget_kept(self, instance_id: str) -> None:
        """Removes what was kept. Idempotent."""

    @abstractmethod
    def resize(self, arrival: Arrival, work: Work) -> Instance:
        """Gives an instance that was kept its new size and shape."""

    # The destination.

    @abstractmethod
    def place_of(self, disk: pb.MigrationDisk) -> Path:
        """Where a disk that was prepared is to be."""

    @abstractmethod
    def take(self, data: pb.MigrationData, disk: pb.MigrationDisk, arrived: Path) -> None:
        """Puts a disk whose bytes have arrived, and were inspected, where it is to be."""

    @abstractmethod
    def forget_state(self, instance_id: str) -> None:
        """Undoes what `make` has done with a machine's state. Idempotent."""

    @abstractmethod
    def make(self, arrival: Arrival, work: Work) -> Instance:
        """Makes an instance of the disks that have arrived, or are shared."""
