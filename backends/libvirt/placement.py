"""Which of the host's CPUs, cells and pages a guest gets. Pure functions over facts.

As in Nova each cell of the guest has a cell of the host to itself, and a pinned
vCPU a host CPU that no other pinned one has.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import permutations

from backends.errors import NoRoomError
from backends.libvirt.xml.capabilities import HostCell
from backends.plan.cpus import CpuLayout, GuestCell
from backends.plan.extra_specs import ExtraSpecs, extra_spec_field

_SMALL_PAGE_KIB = 4
_KIB_PER_MIB = 1024


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where a guest's CPUs and memory are on the host; by default anywhere."""

    cells: Mapping[int, int] = field(default_factory=dict)
    """Cell of the guest → cell of the host."""
    cpus: frozenset[int] = frozenset()
    """Host CPUs that vCPUs may run on which are not pinned."""
    pins: Mapping[int, int] = field(default_factory=dict)
    """vCPU → its host CPU."""
    emulator: frozenset[int] = frozenset()
    """Host CPUs of the emulator's own threads; empty: those of the vCPUs."""
    page_kib: int | None = None
    """Size of the pages that back the memory; None: the ordinary ones."""

    @property
    def own_cpus(self) -> frozenset[int]:
        """Host CPUs that nobody else may have to himself."""
        return frozenset(self.pins.values()) | self.emulator


@dataclass(frozen=True, kw_only=True)
class HostRoom:
    """What of the host can be given away now."""

    cells: Sequence[HostCell]
    pinned: frozenset[int] = frozenset()
    """Host CPUs that instances have to themselves."""
    dedicated: frozenset[int] = frozenset()
    """Host CPUs that are kept for that; empty: any of them may be given away, and shared."""
    free_pages: Mapping[int, Mapping[int, int]] = field(default_factory=dict)
    """Cell → page size in KiB → free pages."""


def place(layout: CpuLayout, extra: ExtraSpecs, room: HostRoom) -> Placement:
    """The first placement that fits; raises NoRoomError saying what lacks."""
    if not layout.cells:
        return _anywhere(room)
    if len(layout.cells) > len(room.cells):
        raise _no_room("hw:numa_nodes", f"the host has {len(room.cells)} NUMA cells")
    sizes = {size for cell in room.cells for size in cell.huge_pages}
    for page_kib in _page_sizes(layout.page_size, sizes):
        for cells in permutations(room.cells, len(layout.cells)):
            placement = _placed(layout, extra, room, cells, page_kib)
            if placement is not None:
                return placement
    raise _what_lacks(layout, extra, room)


def _anywhere(room: HostRoom) -> Placement:
    """A guest without wishes; it stays off the CPUs that are kept for others."""
    if not room.dedicated:
        return Placement()
    shared = _shared(room.cells, room)
    if not shared:
        why = "all host CPUs are kept for instances that have them to themselves"
        raise NoRoomError(why, field="spec.flavor.vcpus")
    return Placement(cpus=shared)


def _page_sizes(asked: str | int | None, present: set[int]) -> list[int | None]:
    """Sizes to be tried, in this order; None is the ordinary one."""
    largest_first: list[int | None] = [*sorted(present, reverse=True)]
    if asked == "large":
        return largest_first
    if asked == "any":
        return [*largest_first, None]
    if isinstance(asked, int) and asked != _SMALL_PAGE_KIB:
        return [asked]
    return [None]


def _placed(
    layout: CpuLayout,
    extra: ExtraSpecs,
    room: HostRoom,
    cells: Sequence[HostCell],
    page_kib: int | None,
) -> Placement | None:
    """The placement on these cells with pages of this size, if it fits."""
    pairs = list(zip(layout.cells, cells, strict=True))
    pins: dict[int, int] = {}
    spare: list[int] = []
    for guest, host in pairs:
        free = list(_free_cpus(host, room, extra.cpu_thread_policy))
        pinned = sorted(layout.pinned & guest.cpus)
        if len(pinned) > len(free) or not _pages_fit(guest, host, room, page_kib):
            return None
        if guest.cpus - layout.pinned and not host.cpus - room.dedicated:
            return None
        pins.update(zip(pinned, free, strict=False))
        spare += free[len(pinned) :]
    isolated = extra.emulator_threads_policy == "isolate"
    if isolated and not spare:
        return None
    return Placement(
        cells={guest.cell_id: host.cell_id for guest, host in pairs},
        cpus=_shared(cells, room) or frozenset(pins.values()),
        pins=pins,
        emulator=frozenset(spare[:1]) if isolated else frozenset(),
        page_kib=page_kib,
    )


def _shared(cells: Sequence[HostCell], room: HostRoom) -> frozenset[int]:
    return frozenset(cpu for host in cells for cpu in host.cpus) - room.dedicated


def _free_cpus(host: HostCell, room: HostRoom, policy: str | None) -> Iterator[int]:
    """CPUs that may be pinned to, siblings next to each other.

    `isolate` takes one CPU of a core that nobody is pinned to, `require` only cores
    that have siblings.
    """
    for core in host.cores:
        free = sorted((core & room.dedicated if room.dedicated else core) - room.pinned)
        if policy == "isolate":
            yield from free[:1] if len(free) == len(core) else ()
        elif policy != "require" or len(core) > 1:
            yield from free


def _pages_fit(guest: GuestCell, host: HostCell, room: HostRoom, page_kib: int | None) -> bool:
    if page_kib is None:
        return True
    pages, rest = divmod(guest.memory_mib * _KIB_PER_MIB, page_kib)
    return not rest and pages <= room.free_pages.get(host.cell_id, {}).get(page_kib, 0)


def _what_lacks(layout: CpuLayout, extra: ExtraSpecs, room: HostRoom) -> NoRoomError:
    """Pages, where the pinned CPUs alone would have fitted; else CPUs."""
    cpus_fit = any(
        _placed(layout, extra, room, cells, None) is not None
        for cells in permutations(room.cells, len(layout.cells))
    )
    if cpus_fit:
        return _no_room("hw:mem_page_size", "not enough free pages of that size in one cell")
    why = f"not enough host CPUs are free to pin {len(layout.pinned)} vCPUs"
    return _no_room("hw:cpu_policy", why)


def _no_room(key: str, why: str) -> NoRoomError:
    return NoRoomError(f"extra spec {key}: {why}", field=extra_spec_field(key))
