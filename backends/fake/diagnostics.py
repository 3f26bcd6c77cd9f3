"""Sizes of an instance's disks, on the fake."""

from virtrpc.v1 import diagnostics_pb2 as pb

from backends.contract import Diagnostics
from backends.disk_files import disk_info
from backends.errors import InstanceNotFoundError
from backends.fake.host import FakeHost


class FakeDiagnostics(Diagnostics):
    """Disks of the fake have no bytes."""

    def __init__(self, host: FakeHost) -> None:
        self._host = host

    def get_instance_disk_info(
        self, request: pb.GetInstanceDiskInfoRequest
    ) -> pb.GetInstanceDiskInfoResponse:
        """See Diagnostics."""
        instance = self._host.find(request.instance_id)
        if instance is None:
            raise InstanceNotFoundError(request.instance_id)
        disks = instance.persistent.disks
        response = pb.GetInstanceDiskInfoResponse(
            disks=[disk_info(d) for d in disks if request.include_volumes or not d.volume_id]
        )
        response.freshness.observed_at.GetCurrentTime()
        return response
