"""What the host has: resources, inventory, nodes, and what instances take beyond their flavor."""

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import os_resource_classes
import os_traits
import psutil
import pytest
from virtrpc.v1 import host_pb2 as pb
from virtrpc.v1.spec_pb2 import Flavor, MachineSpec

from tests.conformance.conftest import Guest
from tests.daemon import Connection, DaemonProcess
from tests.instances import MEMORY_MIB, TIMEOUT_S
from tests.refusals import refused

INVALID = grpc.StatusCode.INVALID_ARGUMENT


def resources(connection: Connection, *, fresh: bool = True) -> pb.GetAvailableResourceResponse:
    request = pb.GetAvailableResourceRequest(fresh=fresh)
    return connection.hosts.GetAvailableResource(request, timeout=TIMEOUT_S)


def inventory(connection: Connection) -> pb.GetInventoryResponse:
    return connection.hosts.GetInventory(pb.GetInventoryRequest(), timeout=TIMEOUT_S)


def test_resources_add_up(connection: Connection, guest: Guest) -> None:
    node = resources(connection)
    assert node.vcpus == sum(len(cell.shared_cpus) for cell in node.numa_cells)
    assert 0 < node.memory_used_mib <= node.memory_mib
    assert 0 <= node.disk_used_mib <= node.disk_mib
    assert node.disk_available_least_mib <= node.disk_mib - node.disk_used_mib
    assert node.running_instances == 1
    assert node.vcpus_used == 1
    assert node.hypervisor.version
    assert node.hypervisor_hostname
    assert not node.freshness.stale


def test_cpus_and_cells_are_described(connection: Connection) -> None:
    node = resources(connection)
    assert node.cpu.architecture == "x86_64"
    assert node.cpu.model
    assert list(node.cpu.features) == sorted(set(node.cpu.features))
    assert {"sse2", "aes"} <= set(node.cpu.features)
    assert node.cpu.cells == len(node.numa_cells)
    numbers = [cpu for cell in node.numa_cells for core in cell.siblings for cpu in core.cpus]
    assert sorted(numbers) == list(range(node.vcpus))
    for cell in node.numa_cells:
        sizes = [pool.page_size_kib for pool in cell.pages]
        assert sizes == sorted(sizes)
        assert all(pool.used <= pool.total for pool in cell.pages)
        assert cell.memory_mib > 0
        assert cell.distances[cell.cell_id] == 10
    assert [guest.vm_mode for guest in node.supported_guests] == ["hvm"]


@pytest.mark.parametrize("backend", ["libvirt"], indirect=True)
def test_figures_are_those_of_the_machine(connection: Connection, backend: str) -> None:
    node = resources(connection)
    assert node.vcpus == psutil.cpu_count()
    assert node.memory_mib == psutil.virtual_memory().total >> 20
    assert node.cpu.vendor in ("Intel", "AMD")
    assert node.supported_guests[0].hypervisor_type in ("kvm", "qemu")


def test_sample_is_as_old_as_it_says(connection: Connection) -> None:
    fresh = resources(connection)
    kept = resources(connection, fresh=False)
    assert kept.freshness.observed_at.ToNanoseconds() >= fresh.freshness.observed_at.ToNanoseconds()


def test_inventory_has_standard_classes_and_traits(connection: Connection) -> None:
    node, (root, *below) = resources(connection), inventory(connection).providers
    assert below == []
    assert set(root.inventories) == {"VCPU", "MEMORY_MB", "DISK_GB"}
    assert set(root.inventories) <= set(os_resource_classes.STANDARDS)
    assert root.inventories["VCPU"].total == node.vcpus
    assert root.inventories["MEMORY_MB"].total == node.memory_mib
    assert root.inventories["DISK_GB"].total == node.disk_mib // 1024
    for found in root.inventories.values():
        assert (found.min_unit, found.max_unit, found.step_size) == (1, found.total, 1)
        assert found.reserved < found.total
        assert found.allocation_ratio == 1.0
    traits = list(root.traits)
    assert traits == sorted(set(traits))
    assert set(traits) <= set(os_traits.get_traits())
    assert {"COMPUTE_NODE", "COMPUTE_IMAGE_TYPE_QCOW2", "HW_CPU_X86_SSE2"} <= set(traits)
    assert os_traits.COMPUTE_STATUS_DISABLED not in traits


def test_traits_of_capabilities_are_in_the_inventory_too(connection: Connection) -> None:
    capabilities = connection.hosts.GetCapabilities(pb.GetCapabilitiesRequest(), timeout=TIMEOUT_S)
    (root,) = inventory(connection).providers
    assert set(capabilities.traits) < set(root.traits)
    assert {trait.partition("_")[0] for trait in capabilities.traits} == {"COMPUTE"}


def test_node_is_the_host(connection: Connection) -> None:
    host = connection.hosts.GetHost(pb.GetHostRequest(), timeout=TIMEOUT_S).host
    for fresh in (False, True):
        request = pb.ListNodesRequest(fresh=fresh)
        (node,) = connection.hosts.ListNodes(request, timeout=TIMEOUT_S).nodes
        assert (node.name, node.node_id) == (host.hostname, host.host_id)
        assert (node.available, node.deleted) == (True, False)
    (root,) = inventory(connection).providers
    assert (root.name, root.provider_id) == (node.name, node.node_id)
    named = pb.GetAvailableResourceRequest(node_name=node.name)
    found = connection.hosts.GetAvailableResource(named, timeout=TIMEOUT_S)
    assert (found.node_name, found.node_id) == (node.name, node.node_id)


def test_unknown_node_is_not_found(connection: Connection) -> None:
    with refused(grpc.StatusCode.NOT_FOUND, "NODE_NOT_FOUND"):
        connection.hosts.GetAvailableResource(pb.GetAvailableResourceRequest(node_name="other"))
    with refused(grpc.StatusCode.NOT_FOUND, "NODE_NOT_FOUND") as refusal:
        connection.hosts.GetInventory(pb.GetInventoryRequest(node_name="other"))
    assert refusal.fields == ["node_name"]
    with refused(INVALID, "INVALID_REQUEST") as refusal:
        connection.hosts.GetInventory(pb.GetInventoryRequest(node_name="-other"))
    assert refusal.fields == ["node_name"]


def overhead(
    connection: Connection, flavor: Flavor, machine: MachineSpec | None = None
) -> pb.EstimateInstanceOverheadResponse:
    request = pb.EstimateInstanceOverheadRequest(flavor=flavor, machine=machine)
    return connection.hosts.EstimateInstanceOverhead(request, timeout=TIMEOUT_S)


def test_overhead_grows_with_what_is_asked_for(connection: Connection) -> None:
    plain = overhead(connection, Flavor(vcpus=1, memory_mib=MEMORY_MIB))
    assert plain.memory_mib > 0
    assert plain.disk_mib > 0
    assert plain.vcpus == 0
    assert overhead(connection, Flavor(vcpus=4, memory_mib=8192)).memory_mib > plain.memory_mib
    with_tpm = overhead(connection, Flavor(vcpus=1, memory_mib=MEMORY_MIB), MachineSpec(vtpm=True))
    assert with_tpm.memory_mib > plain.memory_mib
    isolated = {"hw:cpu_policy": "dedicated", "hw:emulator_threads_policy": "isolate"}
    flavor = Flavor(vcpus=1, memory_mib=MEMORY_MIB, extra_specs=isolated)
    assert overhead(connection, flavor).vcpus == 1


def test_overhead_of_a_bad_flavor_is_refused_at_its_field(connection: Connection) -> None:
    flavor = Flavor(vcpus=1, memory_mib=1, extra_specs={"hw:cpu_policy": "none"})
    with refused(INVALID, "EXTRA_SPEC_INVALID") as refusal:
        overhead(connection, flavor)
    assert refusal.fields == ['flavor.extra_specs["hw:cpu_policy"]']
    with refused(INVALID, "INVALID_REQUEST") as refusal:
        connection.hosts.EstimateInstanceOverhead(pb.EstimateInstanceOverheadRequest())
    assert refusal.fields == ["flavor"]


@pytest.fixture(scope="module")
def generous(short_folder: Callable[[], Path]) -> Iterator[Connection]:
    """A daemon that is configured otherwise in all that concerns inventories."""
    arguments = (
        *("--cpu-allocation-ratio=4", "--memory-allocation-ratio=1.5", "--disk-allocation-ratio=2"),
        *("--reserved-cpus=2", "--reserved-memory=1024", "--reserved-disk=10"),
        *("--pci-passthrough=8086:*", "--dedicated-cpus=0-3,32"),
    )
    daemon = DaemonProcess(short_folder(), backend="fake", arguments=arguments)
    with daemon.start(), daemon.connect() as connection:
        yield connection


def test_ratios_and_reserves_are_configured(generous: Connection) -> None:
    found = inventory(generous).providers[0].inventories
    shown = {name: (found[name].reserved, found[name].allocation_ratio) for name in found}
    assert shown == {
        "VCPU": (2, 4.0),
        "PCPU": (0, 1.0),
        "MEMORY_MB": (1024, 1.5),
        "DISK_GB": (10, 2.0),
    }


def test_cpus_that_are_kept_are_not_shared(generous: Connection) -> None:
    node = resources(generous)
    assert [list(cell.dedicated_cpus) for cell in node.numa_cells] == [[0, 1, 2, 3], [32]]
    assert not any(set(cell.dedicated_cpus) & set(cell.shared_cpus) for cell in node.numa_cells)
    found = inventory(generous).providers[0].inventories
    assert (found["VCPU"].total, found["PCPU"].total) == (node.vcpus - 5, 5)


def test_devices_that_may_be_given_away_are_nested_providers(generous: Connection) -> None:
    node = resources(generous)
    assert [device.address for device in node.pci_devices][:1] == ["0000:81:00.0"]
    root, card = inventory(generous).providers
    assert card.parent_provider_id == root.provider_id
    assert card.name == f"{root.name}_pci_0000:81:00.0"
    assert uuid.UUID(card.provider_id)
    totals = {name: found.total for name, found in card.inventories.items()}
    assert totals == {"CUSTOM_PCI_8086_1520": 1, "CUSTOM_PCI_8086_1521": 4}
    again = inventory(generous).providers[1]
    assert again.provider_id == card.provider_id
