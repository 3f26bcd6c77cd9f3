"""Sizes of an instance's disks, on libvirt."""

from virtrpc.v1 import diagnostics_pb2 as pb

from backends.contract import Diagnostics
from backends.disk_files import disk_info
from backends.errors import InstanceNotFoundError
from backends.libvirt.domains import Domains


class LibvirtDiagnostics(Diagnostics):
    """Reads files, never QEMU: works for guests that hang."""

    def __init__(self, domains: Domains) -> None:
        self._domains = domains

    def get_instance_disk_info(
        self, request: pb.GetInstanceDiskInfoRequest
    ) -> pb.GetInstanceDiskInfoResponse:
        """See Diagnostics."""
        domain = self._domains.find(request.instance_id)
        if domain is None:
            raise InstanceNotFoundError(request.instance_id)
        instance = self._domains.read(domain)
        machine = instance.effective if instance.HasField("effective") else instance.persistent
        disks = [d for d in machine.disks if request.include_volumes or not d.volume_id]
        response = pb.GetInstanceDiskInfoResponse(disks=map(disk_info, disks))
        response.freshness.observed_at.GetCurrentTime()
        return response
