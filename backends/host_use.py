"""What instances take of their host, reckoned from their facts alone; alike for every backend."""

from collections.abc import Iterable
from pathlib import Path

from virtrpc.v1.host_pb2 import GetAvailableResourceResponse
from virtrpc.v1.instance_pb2 import AttachedDisk, Instance, MachineState

from backends.disk_files import disk_info

_BYTES_PER_MIB, _KIB_PER_MIB = 1 << 20, 1 << 10


def divide_cpus(node: GetAvailableResourceResponse, dedicated: frozenset[int]) -> None:
    """Takes the CPUs that are kept for single instances from those that instances share."""
    if not dedicated:
        return
    for cell in node.numa_cells:
        cell.dedicated_cpus[:] = [cpu for cpu in cell.dedicated_cpus if cpu in dedicated]
        cell.shared_cpus[:] = [cpu for cpu in cell.shared_cpus if cpu not in dedicated]


def add_use(node: GetAvailableResourceResponse, instances: Iterable[Instance]) -> None:
    """Puts what instances that are on have of CPUs, NUMA cells and devices into a node."""
    for instance in instances:
        if instance.HasField("effective"):
            node.running_instances += 1
            node.vcpus_used += instance.effective.vcpus
            _add_cells(node, instance.effective)
            _add_devices(node, instance)


def _add_cells(node: GetAvailableResourceResponse, machine: MachineState) -> None:
    by_id = {cell.cell_id: cell for cell in node.numa_cells}
    for taken in machine.host_cells:
        if taken.cell_id in by_id:
            cell = by_id[taken.cell_id]
            cell.vcpus_used += taken.vcpus
            cell.memory_used_mib += taken.memory_kib // _KIB_PER_MIB
    for cell in node.numa_cells:
        pinned = set(machine.dedicated_cpus) & set(cell.dedicated_cpus)
        cell.pinned_cpus[:] = sorted({*cell.pinned_cpus, *pinned})


def _add_devices(node: GetAvailableResourceResponse, instance: Instance) -> None:
    taken = {i.source for i in instance.effective.interfaces if i.type == "hostdev"}
    for device in node.pci_devices:
        if device.address in taken:
            device.instance_id = instance.instance_id


def over_committed_mib(instances: Iterable[Instance], folder: Path) -> int:
    """How much the disks of instances may still grow on the filesystem that holds `folder`."""
    filesystem = folder.stat().st_dev
    grows = sum(
        _may_grow_bytes(disk, filesystem)
        for instance in instances
        for disk in _machine(instance).disks
    )
    return -(-grows // _BYTES_PER_MIB)


def _machine(instance: Instance) -> MachineState:
    return instance.effective if instance.HasField("effective") else instance.persistent


def _may_grow_bytes(disk: AttachedDisk, filesystem: int) -> int:
    if disk.volume_id or not disk.source.startswith("/"):
        return 0
    try:
        there = Path(disk.source).stat().st_dev == filesystem
        return disk_info(disk).over_committed_bytes if there else 0
    except OSError:
        return 0  # it has gone meanwhile, or is not to be read
