"""The host's CPUs, cells and devices, read from documents and folders as they are found."""

from pathlib import Path

import pytest
from virtrpc.v1 import host_pb2 as pb
from virtrpc.v1.instance_pb2 import AttachedDisk, Instance, MachineCell, MachineState

from backends.host_use import add_use, over_committed_mib
from backends.libvirt.placed import numbers, read_host_cells, read_own_cpus
from backends.libvirt.xml.domain import Domain
from backends.libvirt.xml.element import parse
from backends.libvirt.xml.host import (
    features_guests_lack,
    guest_cpu,
    host_cpu,
    read_features,
    read_host_cpu,
    read_numa_cells,
)
from backends.pci_devices import pci_devices

CAPABILITIES = """
<capabilities><host>
  <cpu>
    <arch>x86_64</arch><model>EPYC</model><vendor>AMD</vendor>
    <topology sockets='2' dies='1' cores='2' threads='2'/>
    <feature name='ht'/><feature name='avx2'/><feature name='gone' policy='disable'/>
  </cpu>
  <topology><cells num='2'>
    <cell id='0'>
      <memory unit='KiB'>8388608</memory>
      <pages unit='KiB' size='4'>2097152</pages><pages unit='KiB' size='2048'>16</pages>
      <distances><sibling id='0' value='10'/><sibling id='1' value='21'/></distances>
      <cpus num='2'>
        <cpu id='0' socket_id='0' die_id='0' core_id='0' siblings='0,4'/>
        <cpu id='4' socket_id='0' die_id='0' core_id='0' siblings='0,4'/>
      </cpus>
    </cell>
    <cell id='1'><memory unit='GiB'>4</memory><cpus num='1'>
      <cpu id='1' socket_id='1' die_id='0' core_id='0' siblings='1'/>
    </cpus></cell>
  </cells></topology>
</host></capabilities>
"""
OF_DOMAINS = """
<domainCapabilities><arch>x86_64</arch><cpu>
  <mode name='host-model' supported='yes'>
    <model fallback='forbid'>EPYC</model><vendor>AMD</vendor>
    <feature policy='require' name='vaes'/><feature policy='disable' name='sha-ni'/>
  </mode>
</cpu></domainCapabilities>
"""


def test_cpus_are_read() -> None:
    cpu = read_host_cpu(CAPABILITIES)
    assert (cpu.architecture, cpu.vendor, cpu.model) == ("x86_64", "AMD", "EPYC")
    assert (cpu.sockets, cpu.dies, cpu.cores, cpu.threads) == (2, 1, 2, 2)
    assert list(cpu.features) == ["avx2", "ht"]
    assert "<model>EPYC</model>" in (host_cpu(CAPABILITIES) or "")
    assert (
        host_cpu("<capabilities><host><cpu><arch>i686</arch></cpu></host></capabilities>") is None
    )


def test_cells_are_read() -> None:
    first, second = read_numa_cells(CAPABILITIES)
    assert (first.cell_id, first.memory_mib, first.socket_id) == (0, 8192, 0)
    assert list(first.shared_cpus) == list(first.dedicated_cpus) == [0, 4]
    assert [list(core.cpus) for core in first.siblings] == [[0, 4]]
    assert [(pool.page_size_kib, pool.total) for pool in first.pages] == [(4, 2097152), (2048, 16)]
    assert dict(first.distances) == {0: 10, 1: 21}
    assert (second.memory_mib, second.socket_id, dict(second.distances)) == (4096, 1, {})


def test_features_of_guests_are_those_of_the_model_less_what_they_lack() -> None:
    described = guest_cpu(OF_DOMAINS) or ""
    assert read_features(described) == {"vaes"}
    assert "policy" not in described  # libvirt expands CPUs of hosts alone
    assert features_guests_lack(OF_DOMAINS) == {"sha-ni"}
    assert guest_cpu("<domainCapabilities><cpu/></domainCapabilities>") is None


@pytest.mark.parametrize(
    ("text", "found"), [("0-2,5", {0, 1, 2, 5}), ("7", {7}), ("", set()), ("1, 3", {1, 3})]
)
def test_sets_of_numbers_are_read(text: str, found: set[int]) -> None:
    assert numbers(text) == found


def test_place_of_a_domain_is_read_back() -> None:
    domain = Domain.from_xml(
        parse(
            "<domain><cputune><vcpupin vcpu='0' cpuset='3'/><vcpupin vcpu='1' cpuset='0-7'/>"
            "<emulatorpin cpuset='5'/></cputune>"
            "<numatune><memnode cellid='0' mode='strict' nodeset='1'/></numatune>"
            "<cpu><numa><cell id='0' cpus='0-1' memory='4096' unit='KiB'/></numa></cpu></domain>"
        )
    )
    assert read_own_cpus(domain) == {3, 5}
    assert read_host_cells(domain) == [MachineCell(cell_id=1, vcpus=2, memory_kib=4096)]
    assert read_host_cells(Domain()) == []


def test_use_is_reckoned_from_instances_that_are_on() -> None:
    node = pb.GetAvailableResourceResponse(
        numa_cells=[
            pb.NumaCell(cell_id=0, dedicated_cpus=[0, 1]),
            pb.NumaCell(cell_id=1, dedicated_cpus=[2, 3]),
        ]
    )
    machine = MachineState(
        vcpus=2,
        dedicated_cpus=[1, 3],
        host_cells=[MachineCell(cell_id=1, vcpus=2, memory_kib=2048)],
    )
    add_use(node, [Instance(effective=machine), Instance(persistent=machine)])
    assert (node.running_instances, node.vcpus_used) == (1, 2)
    assert [list(cell.pinned_cpus) for cell in node.numa_cells] == [[1], [3]]
    assert [(cell.vcpus_used, cell.memory_used_mib) for cell in node.numa_cells] == [(0, 0), (2, 2)]


def test_disks_may_still_grow_by_what_they_lack(tmp_path: Path) -> None:
    sparse = tmp_path / "disk.raw"
    with sparse.open("wb") as file:
        file.truncate(10 << 20)
    disks = [
        AttachedDisk(source=str(sparse)),
        AttachedDisk(source=str(tmp_path / "gone.raw")),
        AttachedDisk(source="nbd://elsewhere"),
        AttachedDisk(source=str(sparse), volume_id="a volume's own affair"),
    ]
    instance = Instance(persistent=MachineState(disks=disks))
    assert over_committed_mib([instance], tmp_path) == 10


class TestPciDevices:
    @pytest.fixture
    def sysfs(self, tmp_path: Path) -> Path:
        """A network card with one virtual function, and a bridge."""
        folder = tmp_path / "devices"
        for address, vendor, product in (
            ("0000:00:00.0", "0x8086", "0x0c00"),
            ("0000:03:00.0", "0x8086", "0x1520"),
            ("0000:03:10.0", "0x8086", "0x1521"),
        ):
            device = folder / address
            (device / "net").mkdir(parents=True)
            (device / "vendor").write_text(f"{vendor}\n")
            (device / "device").write_text(f"{product}\n")
            (device / "numa_node").write_text("-1\n")
        card, function = folder / "0000:03:00.0", folder / "0000:03:10.0"
        (card / "sriov_totalvfs").write_text("8\n")
        (card / "numa_node").write_text("1\n")
        (card / "net" / "ens3f0").mkdir()
        (card / "net" / "ens3f0" / "address").write_text("52:54:00:00:00:01\n")
        (function / "physfn").symlink_to(card)
        for name, target in (("driver", "vfio-pci"), ("iommu_group", "42")):
            (tmp_path / target).mkdir()
            (function / name).symlink_to(tmp_path / target)
        return folder

    def test_those_that_are_allowed_are_described(self, sysfs: Path) -> None:
        card, function = pci_devices(["8086:152*"], sysfs=sysfs)
        assert (card.address, card.vendor_id, card.product_id) == ("0000:03:00.0", "8086", "1520")
        assert card.type == pb.PCI_DEVICE_TYPE_PHYSICAL_FUNCTION
        assert (card.numa_cell_id, card.HasField("iommu_group")) == (1, False)
        assert (card.network_device, card.mac_address) == ("ens3f0", "52:54:00:00:00:01")
        assert function.type == pb.PCI_DEVICE_TYPE_VIRTUAL_FUNCTION
        assert (function.parent_address, function.driver) == (card.address, "vfio-pci")
        assert (function.iommu_group, function.HasField("numa_cell_id")) == (42, False)

    @pytest.mark.parametrize(
        ("allowed", "count"),
        [((), 0), (("*",), 3), (("0000:03:*",), 2), (("8086:0C00",), 1), (("1234:*",), 0)],
    )
    def test_nothing_is_told_of_others(
        self, sysfs: Path, allowed: tuple[str, ...], count: int
    ) -> None:
        assert len(pci_devices(allowed, sysfs=sysfs)) == count

    def test_host_without_pci_has_none(self, tmp_path: Path) -> None:
        assert pci_devices(["*"], sysfs=tmp_path / "none") == []
