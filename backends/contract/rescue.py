"""The verbs by which an instance is repaired from outside. Meanings stand in instance.proto."""

from abc import abstractmethod

from virtrpc.v1 import instance_pb2

from backends.contract.backend import Facet
from backends.work import Work


class Rescue(Facet):
    """Booting an instance from another disk, with its own beside it.

    How long it may stay so is the daemon's affair: see service.rescues.
    """

    @abstractmethod
    def rescue_instance(
        self, request: instance_pb2.RescueInstanceRequest, work: Work
    ) -> instance_pb2.RescueInstanceResponse:
        """See InstanceService.RescueInstance."""

    @abstractmethod
    def unrescue_instance(
        self, request: instance_pb2.UnrescueInstanceRequest, work: Work
    ) -> instance_pb2.UnrescueInstanceResponse:
        """See InstanceService.UnrescueInstance."""
