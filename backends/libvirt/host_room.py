"""What the host has left for another instance, and who is just taking of it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import libvirt
import psutil

from backends.errors import ContractError
from backends.libvirt.domains import Domains
from backends.libvirt.errors import is_gone
from backends.libvirt.folders import InstanceFolders
from backends.libvirt.placed import read_own_cpus
from backends.libvirt.placement import HostRoom, Placement, place
from backends.libvirt.probe import Probed
from backends.libvirt.xml.domain import Domain
from backends.libvirt.xml.element import parse
from backends.plan import InstancePlan
from backends.plan.disks import BYTES_PER_MIB
from backends.plan.room import Room


class HostRoomBook:
    """Free memory, disk, CPUs and pages. Callable from any thread.

    A CPU is taken from the moment it is chosen: by a claim until the domain that is
    pinned to it is defined, from then on by that domain.
    """

    def __init__(self, domains: Domains, folders: InstanceFolders, probed: Probed) -> None:
        self._domains = domains
        self._folders = folders
        self._probed = probed
        self._claims: dict[str, frozenset[int]] = {}
        self._lock = threading.Lock()

    def room(self) -> Room:
        """Memory and disk that are free now."""
        return Room(
            memory_mib=psutil.virtual_memory().available // BYTES_PER_MIB,
            disk_bytes=psutil.disk_usage(str(self._folders.folder)).free,
        )

    @contextmanager
    def placed(self, plan: InstancePlan) -> Iterator[tuple[Placement, list[ContractError]]]:
        """Claims a place for an instance until the block is left; or says what lacks."""
        try:
            placement, errors = self._claim(plan), list[ContractError]()
        except ContractError as error:
            placement, errors = Placement(), [error]
        try:
            yield placement, errors
        finally:
            with self._lock:
                self._claims.pop(plan.instance_id, None)

    def _claim(self, plan: InstancePlan) -> Placement:
        if plan.errors or not self._probed.cells:
            return Placement()
        with self._lock:
            room = HostRoom(
                cells=self._probed.cells,
                pinned=self._pinned(plan.instance_id) if plan.cpus.pinned else frozenset(),
                dedicated=self._probed.dedicated_cpus,
                free_pages=self._free_pages() if plan.cpus.page_size else {},
            )
            placement = place(plan.cpus, plan.extra, room)
            self._claims[plan.instance_id] = placement.own_cpus
        return placement

    def _pinned(self, instance_id: str) -> frozenset[int]:
        """Host CPUs that other domains, or spawns under way, have to themselves."""
        taken = set[int]().union(*self._claims.values())
        try:
            for domain in self._domains.connection.handles.own.listAllDomains():
                if domain.UUIDString() != instance_id:
                    taken |= _own_cpus(domain)
        except libvirt.libvirtError as error:
            raise self._domains.failed(error) from error
        return frozenset(taken)

    def _free_pages(self) -> dict[int, dict[int, int]]:
        sizes = sorted({size for cell in self._probed.cells for size in cell.huge_pages})
        if not sizes:
            return {}
        connection = self._domains.connection.handles.own
        try:
            return {
                cell.cell_id: connection.getFreePages(sizes, cell.cell_id, 1)[cell.cell_id]
                for cell in self._probed.cells
            }
        except libvirt.libvirtError as error:
            raise self._domains.failed(error) from error


def _own_cpus(domain: libvirt.virDomain) -> frozenset[int]:
    """Host CPUs that a vCPU of a domain, or its emulator alone, is pinned to."""
    try:
        node = parse(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))
    except libvirt.libvirtError as error:
        if is_gone(error):
            return frozenset()
        raise
    return read_own_cpus(Domain.from_xml(node))
