"""Directories of the host that guests may mount."""

from abc import abstractmethod

from virtrpc.v1 import instance_pb2

from backends.contract.backend import Facet
from backends.work import Work


class Shares(Facet):
    """virtiofs shares of an instance."""

    @abstractmethod
    def mount_share(
        self, request: instance_pb2.MountShareRequest, work: Work
    ) -> instance_pb2.MountShareResponse:
        """See InstanceService.MountShare."""

    @abstractmethod
    def umount_share(
        self, request: instance_pb2.UmountShareRequest, work: Work
    ) -> instance_pb2.UmountShareResponse:
        """See InstanceService.UmountShare."""
