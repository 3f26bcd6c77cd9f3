"""Volumes that grow, and guests that see it."""

import json
import os
from pathlib import Path

import libvirt
from virtrpc.v1 import spec_pb2
from virtrpc.v1.instance_pb2 import AttachedDisk, Instance

from backends.errors import ContractError, HypervisorError, NoRoomError, UnsupportedError
from backends.images import qemu_img
from backends.libvirt.domains import Domains
from backends.power_states import power_blockers
from backends.qcow2 import read_header
from backends.volumes import refusals
from backends.volumes.attached import is_plugged
from backends.volumes.attaching import ATTACHABLE
from backends.volumes.luks import header_bytes
from backends.work import Work

_BYTES = libvirt.VIR_DOMAIN_BLOCK_RESIZE_BYTES


class VolumeGrowth:
    """Sizes of attached volumes."""

    def __init__(self, domains: Domains) -> None:
        self._domains = domains

    def grow(
        self,
        domain: libvirt.virDomain,
        instance: Instance,
        disk: AttachedDisk,
        size_bytes: int,
        work: Work,
    ) -> int:
        """Brings a volume to a size; gives the size that the guest sees."""
        header = header_bytes(Path(disk.source)) if disk.encrypted and _is_local(disk) else 0
        running = is_plugged(instance, disk)
        now = self.guest_size(domain, disk.device_name) if running else storage_size(disk) - header
        work.ready(_blockers(instance, disk, size_bytes, now + header, running=running))
        if now + header != size_bytes:
            work.step("extend")
            if running:
                self._resize_storage(domain, disk, size_bytes - header)
            elif _is_file(disk):
                grow_file(disk, size_bytes)
        return size_bytes - header

    def guest_size(self, domain: libvirt.virDomain, device_name: str) -> int:
        """Bytes that the guest of a running domain sees."""
        try:
            capacity: int = domain.blockInfo(device_name)[0]
        except libvirt.libvirtError as error:
            raise self._domains.failed(error, domain.UUIDString()) from error
        return capacity

    def _resize_storage(
        self, domain: libvirt.virDomain, disk: AttachedDisk, size_bytes: int
    ) -> None:
        """QEMU asks a server anew, and tells in words only that it has not grown."""
        try:
            self.resize(domain, disk.device_name, size_bytes)
        except HypervisorError as error:
            if _is_local(disk):
                raise
            why = f"the storage has not been extended, it seems: {error}"
            raise refusals.volume_too_small(why) from error

    def resize(self, domain: libvirt.virDomain, device_name: str, size_bytes: int) -> None:
        """Grows what QEMU has open, and tells the guest."""
        try:
            domain.blockResize(device_name, size_bytes, _BYTES)
        except libvirt.libvirtError as error:
            raise self._domains.failed(error, domain.UUIDString()) from error


def storage_size(disk: AttachedDisk) -> int:
    """Bytes of the disk in a file or device of this host; 0 for what is on a server."""
    if not _is_local(disk):
        return 0
    with Path(disk.source).open("rb") as file:
        if disk.format == spec_pb2.DISK_FORMAT_QCOW2:
            header = read_header(file)
            return header.virtual_size_bytes if header is not None else 0
        return os.lseek(file.fileno(), 0, os.SEEK_END)


def _blockers(
    instance: Instance, disk: AttachedDisk, wanted: int, now: int, *, running: bool
) -> list[ContractError]:
    blockers = power_blockers(instance, *ATTACHABLE)
    if disk.encrypted and not _is_local(disk):
        why = "how much of a server's volume is its header is not known: detach and attach it again"
        blockers.append(UnsupportedError("extend_volume_encrypted", why=why))
    elif wanted < now:
        blockers.append(refusals.shrink_refused(now))
    elif wanted > now and disk.source.startswith("nbd") and running:
        why = "QEMU does not notice that an NBD export has grown: detach and attach it again"
        blockers.append(UnsupportedError("extend_volume_nbd", why=why))
    elif wanted > now and _is_local(disk) and not _is_file(disk) and storage_size(disk) < wanted:
        blockers.append(refusals.volume_too_small("the device is smaller than size_bytes"))
    return blockers


def grow_file(disk: AttachedDisk, size_bytes: int) -> None:
    """Grows a volume that nobody has open; raises NoRoomError."""
    if disk.format == spec_pb2.DISK_FORMAT_QCOW2:
        _grow_qcow2(Path(disk.source), size_bytes)
        return
    try:
        os.truncate(disk.source, size_bytes)
    except OSError as error:
        if error.errno in qemu_img.FULL:
            raise NoRoomError("the filesystem of the volume is full") from error
        raise HypervisorError(f"the volume cannot be grown: {error.strerror}") from error


def _grow_qcow2(path: Path, size_bytes: int) -> None:
    """Only the header and its tables change: what the file is based on is not opened."""
    source = {"driver": "file", "filename": str(path)}
    document = json.dumps({"driver": "qcow2", "backing": None, "file": source})
    account = qemu_img.Account.owning(path)
    with qemu_img.lent(path):
        qemu_img.run("resize", "--", f"json:{document}", str(size_bytes), account=account)


def _is_local(disk: AttachedDisk) -> bool:
    return disk.source.startswith("/")


def _is_file(disk: AttachedDisk) -> bool:
    return _is_local(disk) and not disk.source.startswith("/dev/")
