"""PCI devices of this host, from sysfs: no driver of libvirt's is needed, and none embeds it.

Source: Documentation/ABI/testing/sysfs-bus-pci of the kernel.
"""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from virtrpc.v1 import host_pb2 as pb

SYSFS = Path("/sys/bus/pci/devices")


def pci_devices(allowed: Sequence[str], *, sysfs: Path = SYSFS) -> list[pb.PciDevice]:
    """The devices that may be given to instances, ordered by address; unset: not known.

    `allowed` are patterns of "vendor:product" or of addresses, e.g. "8086:*".
    """
    if not allowed or not sysfs.is_dir():
        return []
    devices = (_device(path) for path in sorted(sysfs.iterdir()))
    return [device for device in devices if is_allowed(device, allowed)]


def is_allowed(device: pb.PciDevice, allowed: Sequence[str]) -> bool:
    """Whether a device may be given to an instance."""
    names = (device.address, f"{device.vendor_id}:{device.product_id}")
    return any(fnmatchcase(name, pattern.lower()) for name in names for pattern in allowed)


def _device(path: Path) -> pb.PciDevice:
    device = pb.PciDevice(
        address=path.name,
        vendor_id=_text(path / "vendor").removeprefix("0x"),
        product_id=_text(path / "device").removeprefix("0x"),
        type=_type(path),
        parent_address=_linked(path / "physfn"),
        driver=_linked(path / "driver"),
    )
    cell, group = _text(path / "numa_node"), _linked(path / "iommu_group")
    if cell.isdigit():  # -1: none
        device.numa_cell_id = int(cell)
    if group.isdigit():
        device.iommu_group = int(group)
    for interface in sorted(path.glob("net/*"))[:1]:
        device.network_device = interface.name
        device.mac_address = _text(interface / "address")
    return device


def _type(path: Path) -> "pb.PciDeviceType.ValueType":
    if (path / "physfn").exists():
        return pb.PCI_DEVICE_TYPE_VIRTUAL_FUNCTION
    functions = _text(path / "sriov_totalvfs")
    if functions.isdigit() and int(functions):
        return pb.PCI_DEVICE_TYPE_PHYSICAL_FUNCTION
    return pb.PCI_DEVICE_TYPE_STANDARD


def _linked(path: Path) -> str:
    """Name of what a link leads to; empty where there is none."""
    return path.resolve().name if path.is_symlink() else ""


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError:
        return ""  # not every device has every attribute
