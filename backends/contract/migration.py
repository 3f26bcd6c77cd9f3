"""Migration: the groups of verbs, and how a backend reaches the daemon of another host."""

from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Protocol

from virtrpc.v1 import migration_pb2 as pb
from virtrpc.v1.instance_pb2 import Instance

from backends.contract.backend import Facet
from backends.work import Work


def unhindered() -> None:
    """The checkpoint of a call that nobody ends."""


class Peer(Protocol):
    """The daemon of another host. Calls block, and raise what its answer says:

    PeerUnreachableError, PeerRefusedError with its code and reason, or PeerMismatchError.
    A `checkpoint` is called now and then, and ends the call by raising.
    """

    def check_destination(
        self, request: pb.CheckDestinationRequest, checkpoint: Callable[[], None] = unhindered
    ) -> pb.CheckDestinationResponse:
        """See MigrationService.CheckDestination."""

    def prepare_destination(
        self, request: pb.PrepareDestinationRequest, checkpoint: Callable[[], None] = unhindered
    ) -> pb.PrepareDestinationResponse:
        """See MigrationService.PrepareDestination."""

    def rollback_destination(
        self, request: pb.RollbackDestinationRequest, *, within_s: float = 30.0
    ) -> pb.RollbackDestinationResponse:
        """See MigrationService.RollbackDestination."""

    def complete_destination(
        self, request: pb.CompleteDestinationRequest
    ) -> pb.CompleteDestinationResponse:
        """See MigrationService.CompleteDestination."""

    def cleanup_destination_check(
        self, request: pb.CleanupDestinationCheckRequest
    ) -> pb.CleanupDestinationCheckResponse:
        """See MigrationService.CleanupDestinationCheck."""

    def receive_disk(
        self, requests: Iterator[pb.ReceiveDiskRequest], checkpoint: Callable[[], None]
    ) -> pb.ReceiveDiskResponse:
        """See MigrationService.ReceiveDisk. `requests` is read on another thread."""


class Peers(Protocol):
    """Other hosts' daemons, by their addresses."""

    def at(self, uri: str) -> AbstractContextManager[Peer]:
        """The daemon at a `destination_uri`.

        Raises PeerRefusedError where it may not be spoken to in that way.
        """


class LiveMigration(Facet):
    """An instance changes its host while its guest goes on."""

    @abstractmethod
    def live_migrate_instance(
        self, request: pb.LiveMigrateInstanceRequest, work: Work
    ) -> pb.LiveMigrationResult:
        """See MigrationService.LiveMigrateInstance."""

    @abstractmethod
    def abort_live_migration(
        self, request: pb.AbortLiveMigrationRequest, work: Work
    ) -> pb.AbortLiveMigrationResponse:
        """See MigrationService.AbortLiveMigration."""

    @abstractmethod
    def force_complete_live_migration(
        self, request: pb.ForceCompleteLiveMigrationRequest, work: Work
    ) -> pb.ForceCompleteLiveMigrationResponse:
        """See MigrationService.ForceCompleteLiveMigration."""

    @abstractmethod
    def check_source(self, request: pb.CheckSourceRequest) -> pb.CheckSourceResponse:
        """See MigrationService.CheckSource."""

    @abstractmethod
    def complete_source(
        self, request: pb.CompleteSourceRequest, work: Work
    ) -> pb.CompleteSourceResponse:
        """See MigrationService.CompleteSource."""


class MigrationDestination(Facet):
    """An instance comes here."""

    @abstractmethod
    def check_destination(self, request: pb.CheckDestinationRequest) -> pb.CheckDestinationResponse:
        """See MigrationService.CheckDestination."""

    @abstractmethod
    def cleanup_destination_check(
        self, request: pb.CleanupDestinationCheckRequest, work: Work
    ) -> pb.CleanupDestinationCheckResponse:
        """See MigrationService.CleanupDestinationCheck."""

    @abstractmethod
    def prepare_destination(
        self, request: pb.PrepareDestinationRequest, work: Work
    ) -> pb.PrepareDestinationResponse:
        """See MigrationService.PrepareDestination."""

    @abstractmethod
    def rollback_destination(
        self, request: pb.RollbackDestinationRequest, work: Work
    ) -> pb.RollbackDestinationResponse:
        """See MigrationService.RollbackDestination."""

    @abstractmethod
    def complete_destination(
        self, request: pb.CompleteDestinationRequest, work: Work
    ) -> pb.CompleteDestinationResponse:
        """See MigrationService.CompleteDestination."""


class ColdMigration(Facet):
    """An instance changes its host, or its flavor, while its guest is off."""

    @abstractmethod
    def migrate_disk_and_power_off(
        self, request: pb.MigrateDiskAndPowerOffRequest, work: Work
    ) -> pb.MigrateDiskAndPowerOffResponse:
        """See MigrationService.MigrateDiskAndPowerOff."""

    @abstractmethod
    def finish_migration(self, request: pb.FinishMigrationRequest, work: Work) -> Instance:
        """See MigrationService.FinishMigration."""

    @abstractmethod
    def confirm_migration(
        self, request: pb.ConfirmMigrationRequest, work: Work
    ) -> pb.ConfirmMigrationResponse:
        """See MigrationService.ConfirmMigration."""

    @abstractmethod
    def revert_migration(
        self, request: pb.RevertMigrationRequest, work: Work
    ) -> pb.RevertMigrationResponse:
        """See MigrationService.RevertMigration."""


class SharedStorage(Facet):
    """Whether two hosts see the same directory of an instance: tested with a file."""

    @abstractmethod
    def check_shared_storage_local(
        self, request: pb.CheckSharedStorageLocalRequest, work: Work
    ) -> pb.CheckSharedStorageLocalResponse:
        """See MigrationService.CheckSharedStorageLocal."""

    @abstractmethod
    def check_shared_storage_remote(
        self, request: pb.CheckSharedStorageRemoteRequest
    ) -> pb.CheckSharedStorageRemoteResponse:
        """See MigrationService.CheckSharedStorageRemote."""

    @abstractmethod
    def cleanup_shared_storage_check(
        self, request: pb.CleanupSharedStorageCheckRequest, work: Work
    ) -> pb.CleanupSharedStorageCheckResponse:
        """See MigrationService.CleanupSharedStorageCheck."""


class CpuCompatibility(Facet):
    """CPUs of hosts and guests beside this host's."""

    @abstractmethod
    def compare_cpu(self, request: pb.CompareCpuRequest) -> pb.CompareCpuResponse:
        """See MigrationService.CompareCpu."""
