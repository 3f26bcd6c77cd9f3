"""Instances made anew. Meanings stand in instance.proto."""

from abc import abstractmethod

from virtrpc.v1 import instance_pb2

from backends.contract.backend import Facet
from backends.work import Work


class Rebuild(Facet):
    """The same instance with another root disk."""

    @abstractmethod
    def rebuild_instance(
        self, request: instance_pb2.RebuildInstanceRequest, work: Work
    ) -> instance_pb2.Instance:
        """See InstanceService.RebuildInstance."""
