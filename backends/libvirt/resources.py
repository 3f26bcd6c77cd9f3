"""What the host has, and what of it is used: a few calls, however many instances there are."""

from collections.abc import Iterable, Sequence

import libvirt
import psutil
from virtrpc.v1 import host_pb2 as pb
from virtrpc.v1.instance_pb2 import Instance

from backends.contract import HostSample
from backends.host_use import add_use, divide_cpus, over_committed_mib
from backends.libvirt.domains import Domains
from backends.libvirt.folders import InstanceFolders
from backends.libvirt.probe import Probed
from backends.pci_devices import pci_devices
from backends.plan.disks import BYTES_PER_MIB


class HostResources:
    """Samples of the host."""

    def __init__(
        self,
        domains: Domains,
        folders: InstanceFolders,
        probed: Probed,
        *,
        pci_passthrough: Sequence[str],
    ) -> None:
        self._domains = domains
        self._folders = folders
        self._probed = probed
        self._pci_passthrough = pci_passthrough

    def sample(self, instances: Iterable[Instance]) -> HostSample:
        """See Backend.sample_host; raises UnreachableError."""
        host, there = self._probed.host, list(instances)
        node = pb.GetAvailableResourceResponse(
            hypervisor_hostname=host.hostname,
            vcpus=host.vcpus,
            cpu=host.cpu,
            numa_cells=host.cells,
            pci_devices=pci_devices(self._pci_passthrough),
            supported_guests=[
                pb.GuestType(
                    architecture=host.cpu.architecture,
                    hypervisor_type=self._probed.virt_type,
                    vm_mode="hvm",
                )
            ],
        )
        self._add_memory_and_disk(node, there)
        self._add_pages(node)
        divide_cpus(node, self._probed.dedicated_cpus)
        add_use(node, there)
        return HostSample(node=node, guest_cpu_features=host.guest_cpu_features)

    def _add_memory_and_disk(
        self, node: pb.GetAvailableResourceResponse, instances: Sequence[Instance]
    ) -> None:
        # Not libvirt's figure, the sum of the NUMA cells: it lacks memory that was added later.
        memory = psutil.virtual_memory()
        node.memory_mib = memory.total // BYTES_PER_MIB
        node.memory_used_mib = node.memory_mib - memory.available // BYTES_PER_MIB
        disk = psutil.disk_usage(str(self._folders.folder))
        node.disk_mib = disk.total // BYTES_PER_MIB
        free_mib = disk.free // BYTES_PER_MIB
        node.disk_used_mib = node.disk_mib - free_mib
        grows_mib = over_committed_mib(instances, self._folders.folder)
        node.disk_available_least_mib = free_mib - grows_mib

    def _add_pages(self, node: pb.GetAvailableResourceResponse) -> None:
        """How many pages are taken, of all sizes and cells by one call."""
        sizes = sorted({pool.page_size_kib for cell in node.numa_cells for pool in cell.pages})
        if not sizes:
            return
        first = min(cell.cell_id for cell in node.numa_cells)
        count = max(cell.cell_id for cell in node.numa_cells) - first + 1
        try:
            free = self._domains.connection.handles.own.getFreePages(sizes, first, count)
        except libvirt.libvirtError as error:
            raise self._domains.failed(error) from error
        for cell in node.numa_cells:
            for pool in cell.pages:
                left = free.get(cell.cell_id, {}).get(pool.page_size_kib, pool.total)
                pool.used = max(0, pool.total - left)
