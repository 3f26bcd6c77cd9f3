"""A node as a scheduler's resource providers, in the names that schedulers share.

The classes are those of os-resource-classes; what PCI devices are called, and that
virtual functions are in the provider of their physical one, is as in Nova ("PCI
tracking in Placement" in its admin guide).
"""

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

import os_resource_classes
from virtrpc.v1 import host_pb2 as pb

_MIB_PER_GIB = 1024


@dataclass(frozen=True, kw_only=True)
class InventoryPolicy:
    """How much of the host a scheduler may give away."""

    cpu_ratio: float = 1.0
    memory_ratio: float = 1.0
    disk_ratio: float = 1.0
    reserved_cpus: int = 0
    reserved_memory_mib: int = 512
    reserved_disk_gib: int = 0


def providers(
    node: pb.GetAvailableResourceResponse,
    policy: InventoryPolicy,
    *,
    traits: Iterable[str],
    aggregate_ids: Iterable[str],
) -> list[pb.ResourceProvider]:
    """The node's provider first, then those of its devices, ordered by name."""
    root = pb.ResourceProvider(
        provider_id=node.node_id,
        name=node.node_name,
        inventories=_inventories(node, policy),
        traits=sorted(traits),
        aggregate_ids=sorted(aggregate_ids),
    )
    return [root, *_device_providers(node)]


def _inventories(
    node: pb.GetAvailableResourceResponse, policy: InventoryPolicy
) -> dict[str, pb.Inventory]:
    kept = sum(len(set(c.dedicated_cpus) - set(c.shared_cpus)) for c in node.numa_cells)
    shared = node.vcpus - kept
    found = {
        os_resource_classes.VCPU: _inventory(shared, policy.reserved_cpus, policy.cpu_ratio),
        os_resource_classes.PCPU: _inventory(kept),
        os_resource_classes.MEMORY_MB: _inventory(
            node.memory_mib, policy.reserved_memory_mib, policy.memory_ratio
        ),
        os_resource_classes.DISK_GB: _inventory(
            node.disk_mib // _MIB_PER_GIB, policy.reserved_disk_gib, policy.disk_ratio
        ),
    }
    return {name: inventory for name, inventory in found.items() if inventory.total}


def _inventory(total: int, reserved: int = 0, ratio: float = 1.0) -> pb.Inventory:
    return pb.Inventory(
        total=total,
        reserved=min(reserved, total),
        min_unit=1,
        max_unit=total,
        step_size=1,
        allocation_ratio=ratio,
    )


def _device_providers(node: pb.GetAvailableResourceResponse) -> list[pb.ResourceProvider]:
    """One for each PCI device; a virtual function counts with its physical one."""
    devices = sorted(node.pci_devices, key=_provider_address)
    return [
        _device_provider(node, address, list(group))
        for address, group in groupby(devices, _provider_address)
    ]


def _provider_address(device: pb.PciDevice) -> str:
    return device.parent_address or device.address


def _device_provider(
    node: pb.GetAvailableResourceResponse, address: str, devices: Sequence[pb.PciDevice]
) -> pb.ResourceProvider:
    name = f"{node.node_name}_pci_{address}"
    classes = [f"CUSTOM_PCI_{d.vendor_id}_{d.product_id}".upper() for d in devices]
    return pb.ResourceProvider(
        # The same at every call, and after every restart.
        provider_id=str(uuid.uuid5(uuid.UUID(node.node_id), name)),
        name=name,
        parent_provider_id=node.node_id,
        inventories={name: _inventory(classes.count(name)) for name in sorted(set(classes))},
    )
