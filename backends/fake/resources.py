"""What the fake host has: two NUMA cells of 32 CPUs, a network card with virtual functions."""

from collections.abc import Iterable, Sequence

from virtrpc.v1 import host_pb2 as pb
from virtrpc.v1.instance_pb2 import Instance

from backends.contract import HostSample
from backends.fake.features import DISK_BYTES, MEMORY_MIB, free_room
from backends.host_use import add_use, divide_cpus
from backends.pci_devices import is_allowed
from backends.plan.disks import BYTES_PER_MIB

CELLS, CPUS_OF_CELL = 2, 32
_HOSTNAME = "fake-host"
_SMALL_PAGE_KIB, _LARGE_PAGE_KIB, _LARGE_PAGES = 4, 2048, 1024
_FEATURES = ("aes", "avx", "avx2", "fma", "sse", "sse2", "sse4.1", "sse4.2", "ssse3")
_CARD = "0000:81:00.0"


def sample_host(
    instances: Iterable[Instance],
    *,
    pci_passthrough: Sequence[str],
    dedicated_cpus: frozenset[int],
) -> HostSample:
    """See Backend.sample_host."""
    there = list(instances)
    room = free_room(there)
    disk_mib, free_mib = DISK_BYTES // BYTES_PER_MIB, room.disk_bytes // BYTES_PER_MIB
    node = pb.GetAvailableResourceResponse(
        hypervisor_hostname=_HOSTNAME,
        vcpus=CELLS * CPUS_OF_CELL,
        memory_mib=MEMORY_MIB,
        memory_used_mib=max(0, MEMORY_MIB - room.memory_mib),
        disk_mib=disk_mib,
        disk_used_mib=max(0, disk_mib - free_mib),
        disk_available_least_mib=free_mib,
        cpu=_cpu(),
        numa_cells=[_cell(number) for number in range(CELLS)],
        pci_devices=[d for d in _devices() if is_allowed(d, pci_passthrough)],
        supported_guests=[
            pb.GuestType(architecture="x86_64", hypervisor_type="fake", vm_mode="hvm")
        ],
    )
    divide_cpus(node, dedicated_cpus)
    add_use(node, there)
    return HostSample(node=node, guest_cpu_features=frozenset(_FEATURES))


def _cpu() -> pb.HostCpu:
    return pb.HostCpu(
        architecture="x86_64",
        vendor="Fake",
        model="fake",
        model_name="Fake CPU",
        features=_FEATURES,
        sockets=CELLS,
        dies=1,
        cores=CPUS_OF_CELL // 2,
        threads=2,
        mhz=2000,
        cells=CELLS,
    )


def _cell(number: int) -> pb.NumaCell:
    cpus = range(number * CPUS_OF_CELL, (number + 1) * CPUS_OF_CELL)
    memory_mib = MEMORY_MIB // CELLS
    large_kib = _LARGE_PAGES * _LARGE_PAGE_KIB
    return pb.NumaCell(
        cell_id=number,
        shared_cpus=cpus,
        dedicated_cpus=cpus,
        siblings=[pb.CpuSiblings(cpus=(cpu, cpu + 1)) for cpu in cpus[::2]],
        socket_id=number,
        memory_mib=memory_mib,
        pages=[
            pb.PagePool(
                page_size_kib=_SMALL_PAGE_KIB,
                total=(memory_mib * 1024 - large_kib) // _SMALL_PAGE_KIB,
            ),
            pb.PagePool(page_size_kib=_LARGE_PAGE_KIB, total=_LARGE_PAGES),
        ],
        distances={other: 10 if other == number else 20 for other in range(CELLS)},
    )


def _devices() -> list[pb.PciDevice]:
    card = pb.PciDevice(
        address=_CARD,
        vendor_id="8086",
        product_id="1520",
        type=pb.PCI_DEVICE_TYPE_PHYSICAL_FUNCTION,
        numa_cell_id=1,
        driver="igb",
        iommu_group=40,
        network_device="ens1f0",
        mac_address="52:54:00:81:00:00",
    )
    functions = [
        pb.PciDevice(
            address=f"0000:81:10.{number}",
            vendor_id="8086",
            product_id="1521",
            type=pb.PCI_DEVICE_TYPE_VIRTUAL_FUNCTION,
            parent_address=_CARD,
            numa_cell_id=1,
            driver="vfio-pci",
            iommu_group=41 + number,
        )
        for number in range(4)
    ]
    return [card, *functions]
