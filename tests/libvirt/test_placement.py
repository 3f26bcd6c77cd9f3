"""Which host CPUs, cells and pages guests get, and how it is written into a domain."""

from pathlib import Path

import pytest
from lxml import etree
from virtrpc.v1.spec_pb2 import InstanceSpec

from backends.errors import NoRoomError
from backends.libvirt.blueprint import Place, domain_xml
from backends.libvirt.placement import HostRoom, Placement, place
from backends.libvirt.xml.capabilities import HostCell, read_cells
from backends.libvirt.xml.domain import Domain
from backends.libvirt.xml.element import parse
from backends.libvirt.xml.metadata import InstanceMetadata
from backends.plan import InstancePlan

INSTANCE_ID = "0f9a5c1e-6d2b-4c8e-9d55-3b1f0a2c7e44"
SCHEMA = Path("/usr/share/libvirt/schemas/domain.rng")
MIB2 = 2048
# Two cells of two cores of two threads each.
CELLS = (
    HostCell(cell_id=0, cores=(frozenset({0, 4}), frozenset({1, 5})), huge_pages={MIB2: 600}),
    HostCell(cell_id=1, cores=(frozenset({2, 6}), frozenset({3, 7})), huge_pages={MIB2: 600}),
)
NO_SIBLINGS = (HostCell(cell_id=0, cores=(frozenset({0}), frozenset({1})), huge_pages={}),)


def spec_of(vcpus: int, memory_mib: int = 1024, **extra: str) -> InstanceSpec:
    """A specification with extra specs given without their scope."""
    spec = InstanceSpec()
    spec.flavor.vcpus, spec.flavor.memory_mib = vcpus, memory_mib
    spec.flavor.extra_specs.update({f"hw:{name}": value for name, value in extra.items()})
    return spec


def placed(
    spec: InstanceSpec,
    cells: tuple[HostCell, ...] = CELLS,
    *,
    pinned: frozenset[int] = frozenset(),
    dedicated: frozenset[int] = frozenset(),
    free_pages: int = 600,
) -> Placement:
    plan = InstancePlan(INSTANCE_ID, spec)
    assert not plan.errors
    free = {cell.cell_id: {MIB2: free_pages} for cell in cells}
    return place(
        plan.cpus,
        plan.extra,
        HostRoom(cells=cells, pinned=pinned, dedicated=dedicated, free_pages=free),
    )


def test_a_guest_without_wishes_runs_anywhere() -> None:
    assert placed(spec_of(64)) == Placement()


def test_cpus_that_are_kept_go_to_pinned_guests_alone() -> None:
    kept = frozenset({1, 2, 6})
    assert placed(spec_of(64), dedicated=kept) == Placement(cpus=frozenset({0, 3, 4, 5, 7}))
    pinned = placed(spec_of(2, cpu_policy="dedicated"), dedicated=kept)
    assert dict(pinned.pins) == {0: 2, 1: 6}
    assert pinned.cpus == {3, 7}
    mixed = spec_of(2, cpu_policy="mixed", cpu_dedicated_mask="0")
    placement = placed(mixed, dedicated=kept)
    assert dict(placement.pins) == {0: 1}
    assert placement.cpus == {0, 4, 5}


def test_host_whose_cpus_are_all_kept_has_none_to_share() -> None:
    everything = frozenset(range(8))
    pinned = placed(spec_of(2, cpu_policy="dedicated"), dedicated=everything)
    assert dict(pinned.pins) == {0: 0, 1: 4}
    assert pinned.cpus == {0, 4}
    with pytest.raises(NoRoomError) as refused:
        placed(spec_of(1), dedicated=everything)
    assert refused.value.field == "spec.flavor.vcpus"
    with pytest.raises(NoRoomError):
        placed(spec_of(2, cpu_policy="mixed", cpu_dedicated_mask="0"), dedicated=everything)


def test_pinned_cpus_stay_in_one_cell_siblings_first() -> None:
    placement = placed(spec_of(3, cpu_policy="dedicated"))
    assert placement.cells == {0: 0}
    assert placement.pins == {0: 0, 1: 4, 2: 1}


def test_a_cell_without_free_cpus_is_passed_over() -> None:
    placement = placed(spec_of(2, cpu_policy="dedicated"), pinned=frozenset({0, 1, 4}))
    assert placement.pins == {0: 2, 1: 6}


def test_mixed_pins_the_masked_cpus_alone() -> None:
    placement = placed(spec_of(4, cpu_policy="mixed", cpu_dedicated_mask="^0-1"))
    assert placement.pins == {2: 0, 3: 4}
    assert placement.cpus == {0, 1, 4, 5}


def test_isolate_takes_cores_nobody_is_on() -> None:
    spec = spec_of(1, cpu_policy="dedicated", cpu_thread_policy="isolate")
    assert placed(spec, pinned=frozenset({4})).pins == {0: 1}


def test_require_refuses_a_host_without_siblings() -> None:
    spec = spec_of(1, cpu_policy="dedicated", cpu_thread_policy="require")
    with pytest.raises(NoRoomError):
        placed(spec, NO_SIBLINGS)


def test_isolated_emulator_gets_a_cpu_of_its_own() -> None:
    spec = spec_of(3, cpu_policy="dedicated", emulator_threads_policy="isolate")
    placement = placed(spec)
    assert placement.emulator == {5}
    assert placement.own_cpus == {0, 1, 4, 5}


def test_each_guest_cell_has_a_host_cell() -> None:
    assert placed(spec_of(2, numa_nodes="2")).cells == {0: 0, 1: 1}


@pytest.mark.parametrize(
    ("extra", "field"),
    [
        ({"numa_nodes": "3"}, "hw:numa_nodes"),
        ({"cpu_policy": "dedicated"}, "hw:cpu_policy"),
        ({"mem_page_size": "1GB"}, "hw:mem_page_size"),
    ],
)
def test_what_lacks_is_named(extra: dict[str, str], field: str) -> None:
    with pytest.raises(NoRoomError) as caught:
        placed(spec_of(6, 1536, **extra))
    assert caught.value.field == f'spec.flavor.extra_specs["{field}"]'


@pytest.mark.parametrize(
    ("page_size", "free_pages", "page_kib"),
    [("large", 600, MIB2), ("any", 600, MIB2), ("any", 1, None), ("small", 600, None),
     ("2MB", 600, MIB2), ("2048", 600, MIB2), ("4KiB", 600, None)],
)  # fmt: skip
def test_pages_of_the_size_asked_for(page_size: str, free_pages: int, page_kib: int | None) -> None:
    placement = placed(spec_of(1, mem_page_size=page_size), free_pages=free_pages)
    assert placement.page_kib == page_kib


def test_too_few_pages_are_no_room() -> None:
    with pytest.raises(NoRoomError):
        placed(spec_of(1, mem_page_size="large"), free_pages=511)


def test_placement_is_written_as_libvirt_reads_it() -> None:
    spec = spec_of(
        3, 1536, cpu_policy="mixed", cpu_dedicated_mask="0-1", emulator_threads_policy="isolate",
        mem_page_size="large", numa_nodes="1",
    )  # fmt: skip
    at = Place(
        virt_type="qemu",
        emulator=None,
        root_disk=None,
        kernel=None,
        ramdisk=None,
        console_log=Path("/var/lib/virtrpc/instances/x/console.log"),
        placement=placed(spec, free_pages=768),
    )
    node = parse(domain_xml(INSTANCE_ID, InstanceMetadata(spec), at))
    etree.RelaxNG(etree.parse(SCHEMA)).assertValid(node)
    domain = Domain.from_xml(node)
    assert (domain.vcpu_placement, domain.vcpu_cpus) == ("static", "0-1,4-5")
    assert [(pin.vcpu, pin.cpus) for pin in domain.vcpu_pins] == [(0, "0"), (1, "4")]
    assert domain.emulator_cpus == "1"
    assert (domain.memory_mode, domain.memory_cells) == ("strict", "0")
    assert [(one.cell, one.host_cells) for one in domain.memory_nodes] == [(0, "0")]
    assert (domain.page_size, domain.page_unit) == (MIB2, "KiB")


def test_guest_without_cells_is_kept_off_the_cpus_of_others() -> None:
    at = Place(
        virt_type="qemu",
        emulator=None,
        root_disk=None,
        kernel=None,
        ramdisk=None,
        console_log=Path("/folder/console.log"),
        placement=Placement(cpus=frozenset({0, 1, 4})),
    )
    node = parse(domain_xml(INSTANCE_ID, InstanceMetadata(spec_of(1)), at))
    domain = Domain.from_xml(node)
    assert (domain.vcpu_placement, domain.vcpu_cpus) == ("static", "0-1,4")
    assert (domain.vcpu_pins, domain.memory_mode) == ([], None)


def test_cells_are_read_from_the_capabilities_of_the_host() -> None:
    document = """
    <capabilities><host><topology><cells num='1'><cell id='1'>
      <pages unit='KiB' size='4'>1000</pages>
      <pages unit='KiB' size='2048'>3</pages>
      <pages unit='KiB' size='1048576'>0</pages>
      <cpus num='3'>
        <cpu id='2' socket_id='0' die_id='0' core_id='1' siblings='2'/>
        <cpu id='0' socket_id='0' die_id='0' core_id='0' siblings='0,1'/>
        <cpu id='1' socket_id='0' die_id='0' core_id='0' siblings='0,1'/>
      </cpus></cell></cells></topology></host></capabilities>"""
    (cell,) = read_cells(document)
    cores = (frozenset({0, 1}), frozenset({2}))
    assert cell == HostCell(cell_id=1, cores=cores, huge_pages={2048: 3})
