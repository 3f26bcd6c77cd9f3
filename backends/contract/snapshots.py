"""Images made from instances. Meanings stand in instance.proto."""

from abc import abstractmethod

from virtrpc.v1 import instance_pb2

from backends.contract.backend import Facet
from backends.work import Work


class Snapshots(Facet):
    """Copies of an instance's disk."""

    @abstractmethod
    def snapshot_instance(
        self, request: instance_pb2.SnapshotInstanceRequest, work: Work
    ) -> instance_pb2.SnapshotInstanceResponse:
        """See InstanceService.SnapshotInstance."""
