"""Overlays of volumes' files: made by libvirt's snapshots, merged by QEMU's jobs."""

from collections.abc import Iterator
from pathlib import Path

import libvirt
from virtrpc.v1 import volume_pb2 as pb
from virtrpc.v1.instance_pb2 import AttachedDisk, Instance

from backends.errors import (
    AlreadyExistsError,
    ContractError,
    HypervisorError,
    NotFoundError,
    TimedOutError,
)
from backends.libvirt.block_jobs import BlockJob
from backends.libvirt.domains import Domains
from backends.libvirt.machines import has_open
from backends.libvirt.plugging import CONFIG, LIVE, Plugging
from backends.libvirt.xml.disk import Disk
from backends.libvirt.xml.element import to_text
from backends.libvirt.xml.snapshot import DomainSnapshot, SnapshotDisk
from backends.qcow2 import read_header
from backends.volumes import snapshots
from backends.volumes.refusals import unsafe_volume
from backends.volumes.snapshots import Merge
from backends.volumes.storage import chain_below

_TAKE = (
    libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY
    | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_NO_METADATA
    | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_ATOMIC
)
_REUSE = libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_REUSE_EXT


class Overlays:
    """The files behind disks of domains."""

    def __init__(self, domains: Domains) -> None:
        self._domains = domains
        self._plugging = Plugging(domains)

    def chain(self, domain: libvirt.virDomain, disk: AttachedDisk) -> list[str]:
        """Names of a volume's files, the active one first."""
        flag = LIVE if domain.isActive() else CONFIG
        found = self._plugging.disk(domain, flag, disk.device_name)
        if found is None or found.source_file is None:
            return [Path(disk.source).name]
        below = [Path(file.file).name for file in found.chain or () if file.file]
        if found.chain is None and found.format == "qcow2":
            # A machine that is off finds out when it starts, by the headers.
            below = [file.path.name for file in chain_below(Path(found.source_file))]
        return [Path(found.source_file).name, *below]

    def cut(
        self,
        domain: libvirt.virDomain,
        instance: Instance,
        disk: AttachedDisk,
        name: str,
        *,
        reuse: bool,
    ) -> None:
        """Puts an overlay of that name, which is there or not, on the active file."""
        overlay = Path(disk.source).parent / name
        wanted = DomainSnapshot(disks=list(_disks(instance, disk, overlay)))
        try:
            domain.snapshotCreateXML(to_text(wanted.to_xml()), _TAKE | (_REUSE if reuse else 0))
        except libvirt.libvirtError as error:
            raise self._domains.failed(error, instance.instance_id) from error

    def drop(self, domain: libvirt.virDomain, device_name: str, name: str) -> None:
        """Takes an overlay away again that may be there; what the guest has written stays."""
        runs = bool(domain.isActive())
        disk = self._plugging.disk(domain, LIVE if runs else CONFIG, device_name)
        if disk is None or disk.source_file is None:
            return
        overlay = Path(disk.source_file).parent / name
        if Path(disk.source_file) == overlay:
            try:
                if runs:
                    self._merge_back(domain, device_name)
                else:
                    _turn_back(domain, disk)
            except libvirt.libvirtError as error:
                raise self._domains.failed(error, domain.UUIDString()) from error
        self.configure(domain, device_name)
        if has_open(self._domains.machine_of(domain), overlay):
            # libvirt did not hear of it, and QEMU did not say so before libvirt was opened.
            why = f"the machine has {overlay.name} open, which the hypervisor does not know"
            raise TimedOutError(f"{why}: start the service anew")
        overlay.unlink(missing_ok=True)

    def configure(self, domain: libvirt.virDomain, device_name: str) -> None:
        """Has a running machine's disk on the same files at its next start.

        libvirt sees to it at the end of a job; where it died then, nobody has.
        """
        live = self._plugging.disk(domain, LIVE, device_name) if domain.isActive() else None
        kept = self._plugging.disk(domain, CONFIG, device_name)
        if live is None or kept is None or live.source_file is None or _starts_as(kept, live):
            return
        # With its end: at the next start QEMU follows no header, which the guest may have written.
        kept.source_file, kept.format, kept.chain = live.source_file, live.format, live.chain
        try:
            domain.updateDeviceFlags(to_text(kept.to_xml()), CONFIG)
        except libvirt.libvirtError as error:
            raise self._domains.failed(error, domain.UUIDString()) from error

    def _merge_back(self, domain: libvirt.virDomain, device_name: str) -> None:
        flags = libvirt.VIR_DOMAIN_BLOCK_COMMIT_ACTIVE
        job = BlockJob(self._domains, domain, device_name)
        if not job.is_there():  # an undo that was killed has begun one
            job.begin(lambda: domain.blockCommit(device_name, None, None, 0, flags))
        job.until_ready(None, "merge")
        job.pivot()


def _starts_as(kept: Disk, live: Disk) -> bool:
    """Whether a disk as it is configured has the files of the one that runs."""
    if kept.chain is None:  # the files say so themselves
        return kept.source_file == live.source_file
    below = [[file.file for file in disk.chain or ()] for disk in (kept, live)]
    return kept.source_file == live.source_file and below[0] == below[1]


def _turn_back(domain: libvirt.virDomain, disk: Disk) -> None:
    """An instance that is off has written nothing since: its disk is the file below again.

    Which that is the overlay says: libvirt does not, of a definition that it has read from disk.
    """
    assert disk.source_file is not None  # noqa: S101 - the caller has looked
    below = next(chain_below(Path(disk.source_file)), None)
    if below is None:
        raise HypervisorError(f"{disk.source_file} is on no other file")
    disk.source_file, disk.format, disk.chain = str(below.path), below.format, None
    domain.updateDeviceFlags(to_text(disk.to_xml()), CONFIG)


def _disks(instance: Instance, disk: AttachedDisk, overlay: Path) -> Iterator[SnapshotDisk]:
    """What becomes of every disk: nothing, but for the one."""
    yield SnapshotDisk(
        name=disk.device_name,
        snapshot="external",
        type="file",
        format="qcow2",
        source_file=str(overlay),
    )
    for other in instance.persistent.disks:
        if other.device_name != disk.device_name:
            yield SnapshotDisk(name=other.device_name, snapshot="no")


def begin_merge(
    domain: libvirt.virDomain,
    disk: AttachedDisk,
    merge: Merge,
    bandwidth: int,
    *,
    active: bool,
) -> None:
    """Begins QEMU's job; raises libvirt.libvirtError."""
    folder = Path(disk.source).parent
    base = str(folder / merge.base) if merge.base else None
    if merge.pull and base is None:
        domain.blockPull(disk.device_name, bandwidth, libvirt.VIR_DOMAIN_BLOCK_PULL_BANDWIDTH_BYTES)
    elif merge.pull:
        flags = libvirt.VIR_DOMAIN_BLOCK_REBASE_BANDWIDTH_BYTES
        domain.blockRebase(disk.device_name, base, bandwidth, flags)
    else:
        flags = libvirt.VIR_DOMAIN_BLOCK_COMMIT_BANDWIDTH_BYTES
        flags |= libvirt.VIR_DOMAIN_BLOCK_COMMIT_ACTIVE if active else 0
        domain.blockCommit(disk.device_name, base, str(folder / merge.top), bandwidth, flags)


def overlay_errors(request: pb.CreateVolumeSnapshotRequest, active: Path) -> list[ContractError]:
    """That the overlay is there or not, as the request has it, and is what it should be."""
    overlay = active.parent / snapshots.overlay_name(request, active.name)
    if not request.reuse_file:
        there = overlay.exists() or overlay.is_symlink()
        why = f"{overlay.name} is there already"
        return [AlreadyExistsError(why, reason="FILE_EXISTS")] if there else []
    if not overlay.is_file() or overlay.is_symlink():
        return [NotFoundError(f"there is no file {overlay.name}", reason="FILE_NOT_FOUND")]
    with overlay.open("rb") as file:
        header = read_header(file)
    if header is None or header.external_data_file or not _is_on(header.backing_file, active):
        why = "the overlay is no empty qcow2 file on the active one"
        return [unsafe_volume(why, "overlay_file")]
    return []


def _is_on(backing_file: str, active: Path) -> bool:
    return bool(backing_file) and active.parent / backing_file == active
