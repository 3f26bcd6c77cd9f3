"""The host's own power, and domains that the service did not make."""

from abc import abstractmethod

from virtrpc.v1 import host_pb2

from backends.contract.backend import Facet
from backends.work import Work


class HostPower(Facet):
    """The host's own power."""

    @abstractmethod
    def host_power_action(
        self, request: host_pb2.HostPowerActionRequest, work: Work
    ) -> host_pb2.HostPowerActionResponse:
        """See HostService.HostPowerAction."""


class Adoption(Facet):
    """Domains that the service did not make."""

    @abstractmethod
    def import_instance(
        self, request: host_pb2.ImportInstanceRequest, work: Work
    ) -> host_pb2.ImportInstanceResponse:
        """See HostService.ImportInstance."""
