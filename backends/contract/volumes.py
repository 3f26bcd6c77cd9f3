"""The verbs about volumes."""

from abc import abstractmethod

from virtrpc.v1 import volume_pb2

from backends.contract.backend import Facet
from backends.work import Work


class Volumes(Facet):
    """Volumes that come, grow, are replaced and go."""

    @abstractmethod
    def attach_volume(
        self, request: volume_pb2.AttachVolumeRequest, work: Work
    ) -> volume_pb2.AttachVolumeResponse:
        """See VolumeService.AttachVolume."""

    @abstractmethod
    def detach_volume(
        self, request: volume_pb2.DetachVolumeRequest, work: Work
    ) -> volume_pb2.DetachVolumeResponse:
        """See VolumeService.DetachVolume."""

    @abstractmethod
    def extend_volume(
        self, request: volume_pb2.ExtendVolumeRequest, work: Work
    ) -> volume_pb2.ExtendVolumeResponse:
        """See VolumeService.ExtendVolume."""

    @abstractmethod
    def swap_volume(
        self, request: volume_pb2.SwapVolumeRequest, work: Work
    ) -> volume_pb2.SwapVolumeResponse:
        """See VolumeService.SwapVolume."""


class VolumeSnapshots(Facet):
    """Snapshots of attached volumes."""

    @abstractmethod
    def create_volume_snapshot(
        self, request: volume_pb2.CreateVolumeSnapshotRequest, work: Work
    ) -> volume_pb2.CreateVolumeSnapshotResponse:
        """See VolumeService.CreateVolumeSnapshot."""

    @abstractmethod
    def delete_volume_snapshot(
        self, request: volume_pb2.DeleteVolumeSnapshotRequest, work: Work
    ) -> volume_pb2.DeleteVolumeSnapshotResponse:
        """See VolumeService.DeleteVolumeSnapshot."""


class VolumeFacts(Facet):
    """What a caller must know before it attaches anything."""

    @abstractmethod
    def get_volume_connector(
        self, request: volume_pb2.GetVolumeConnectorRequest
    ) -> volume_pb2.GetVolumeConnectorResponse:
        """See VolumeService.GetVolumeConnector."""

    @abstractmethod
    def assign_device_names(
        self, request: volume_pb2.AssignDeviceNamesRequest
    ) -> volume_pb2.AssignDeviceNamesResponse:
        """See VolumeService.AssignDeviceNames."""

    @abstractmethod
    def check_filesystem_support(
        self, request: volume_pb2.CheckFilesystemSupportRequest
    ) -> volume_pb2.CheckFilesystemSupportResponse:
        """See VolumeService.CheckFilesystemSupport."""
