"""A boot volume written with an image, by QEMU itself: whatever its storage, server and key.

The machine starts without running, from an overlay of the image that is as large as the
volume. That disk is mirrored to the volume and turned to it; only then the guest runs.

    overlay ──▶ (commit) ──▶ start paused ──▶ mirror ──▶ turn ──▶ run ──▶ overlay removed

While the overlay is there the volume is not whole: who finds it begins at the start again.
"""

from pathlib import Path

import libvirt

from backends.errors import ContractError, HypervisorError, UnreachableError
from backends.images import StoredImage
from backends.libvirt.block_jobs import MIRROR, BlockJob
from backends.libvirt.blueprint.volumes import mirror_target
from backends.libvirt.definition import persistent
from backends.libvirt.disks import make_overlay
from backends.libvirt.domains import Domains, is_active
from backends.libvirt.lifecycle import force_off
from backends.libvirt.volume_growth import VolumeGrowth
from backends.libvirt.xml.disk import Disk
from backends.libvirt.xml.element import Node, to_text
from backends.rebuild import volume_too_small
from backends.work import Undo, Work

_OVERLAY = "boot-volume.qcow2"
_FROM_PERCENT = 60
_PAUSED = libvirt.VIR_DOMAIN_START_PAUSED


class BootVolume:
    """The volume that a domain boots from."""

    def __init__(self, domains: Domains, domain: libvirt.virDomain, name: str) -> None:
        """`name` is that of its disk."""
        self._domains = domains
        self._domain = domain
        self._name = name
        self._growth = VolumeGrowth(domains)

    def size_errors(self, image: StoredImage) -> list[ContractError]:
        """That an image fits, where a machine has the volume open."""
        if not is_active(self._domain):
            return []
        size_bytes = self._growth.guest_size(self._domain, self._name)
        too_small = size_bytes < image.virtual_size_bytes
        return [volume_too_small(image, size_bytes)] if too_small else []

    def measured(self, work: Work) -> int:
        """Its size in bytes, as QEMU finds it when it has it open; the machine is off."""
        instance_id = self._domain.UUIDString()
        work.step("measure", Undo("force_off", {"instance_id": instance_id}))
        try:
            self._domains.start(self._domain, _PAUSED)
        except libvirt.libvirtError as error:
            raise self._domains.failed(error, instance_id) from error
        size_bytes = self._growth.guest_size(self._domain, self._name)
        force_off(self._domains, instance_id)
        return size_bytes

    def write(self, folder: Path, work: Work) -> None:
        """Writes it from the overlay in the instance's folder, and runs the guest.

        Where that fails the machine is off, and the volume has something of both.
        """
        instance_id, overlay = self._domain.UUIDString(), folder / _OVERLAY
        force_off(self._domains, instance_id)
        try:
            self._mirror(overlay, work)
        except UnreachableError:
            raise  # it is begun again when libvirt is back
        except ContractError:
            force_off(self._domains, instance_id)
            overlay.unlink()
            raise
        overlay.unlink()

    def _mirror(self, overlay: Path, work: Work) -> None:
        work.phase("volume", percent=_FROM_PERCENT)
        definition = persistent(self._domains, self._domain)
        node = _disk(definition, self._name)
        target = to_text(mirror_target(Disk.from_xml(node)).to_xml())
        _turn_to(node, overlay)
        job = BlockJob(self._domains, self._domain, self._name)
        try:
            self._domains.before_start(self._domain)
            self._domain.connect().createXML(to_text(definition), _PAUSED)
            job.begin(lambda: self._domain.blockCopy(self._name, target, None, MIRROR))
            if not job.until_ready(work, "volume", from_percent=_FROM_PERCENT):
                raise HypervisorError("the volume was not written to its end")
            job.pivot()
            self._domain.resume()
        except libvirt.libvirtError as error:
            raise self._domains.failed(error, self._domain.UUIDString()) from error


def make_volume_overlay(folder: Path, image: StoredImage, size_bytes: int) -> None:
    """Makes what a boot volume is written from; raises ROOT_DISK_TOO_SMALL."""
    if size_bytes < image.virtual_size_bytes:
        raise volume_too_small(image, size_bytes)
    make_overlay(folder / _OVERLAY, image, size_bytes=size_bytes)


def is_half_written(folder: Path) -> bool:
    """Whether the boot volume of an instance, whose folder this is, is to be written yet."""
    return (folder / _OVERLAY).exists()


def _disk(definition: Node, name: str) -> Node:
    for node in definition.iterfind("devices/disk"):
        if node.find(f"target[@dev='{name}']") is not None:
            return node
    raise HypervisorError(f"the instance has no disk {name}")


def _turn_to(node: Node, overlay: Path) -> None:
    """Puts a file in the place of a disk's bytes; what the guest sees of it stays."""
    disk, address = Disk.from_xml(node), node.find("address")
    over = Disk(
        type="file",
        device=disk.device,
        driver_name="qemu",
        format="qcow2",
        discard=disk.discard,
        source_file=str(overlay),
        target=disk.target,
        bus=disk.bus,
        iotune=disk.iotune,
        serial=disk.serial,
        boot_order=disk.boot_order,
        alias=disk.alias,
    ).to_xml()
    if address is not None:
        over.append(address)
    parent = node.getparent()
    assert parent is not None  # noqa: S101
    parent.replace(node, over)
