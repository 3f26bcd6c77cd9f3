"""A domain on its way into rescue and out of it.

            in its own system        in rescue
    vda     root, booted first       rescue, booted first
    vdb     –                        root
    vdz     its config drive         that of the rescue system

The rescue disk takes over name, bus and address of the root disk. All else is left
alone, so volumes and interfaces may come and go meanwhile, and what the domain has
at the end is what is taken back.
"""

from pathlib import Path

from google.protobuf.timestamp_pb2 import Timestamp
from lxml import etree
from virtrpc.v1 import spec_pb2

from backends.libvirt.instances import ALIAS_PREFIX
from backends.libvirt.xml.domain import Disk, Domain
from backends.libvirt.xml.element import Node
from backends.libvirt.xml.metadata import RescueMetadata
from backends.plan.disks import CONFIG_DRIVE_NAME, free_name

_VIRTIO = spec_pb2.DISK_BUS_VIRTIO
_KERNEL = ("kernel", "initrd", "cmdline")


def rescue_facts(node: Node, *, image_id: str, since: Timestamp) -> RescueMetadata:
    """What is noted of a <domain> that is about to go into rescue."""
    domain, config = Domain.from_xml(node), disk_node(node, "config")
    return RescueMetadata(
        image_id=image_id,
        since=since,
        kernel=domain.kernel or "",
        ramdisk=domain.initrd or "",
        kernel_args=domain.kernel_args or "",
        boot=" ".join(boot.get("dev", "") for boot in node.iterfind("os/boot")),
        config_drive="" if config is None else Disk.from_xml(config).source_file or "",
    )


def enter_rescue(node: Node, *, disk: Path, config_drive: Path | None) -> None:
    """Makes a <domain> boot from `disk`; nothing where it does already."""
    if disk_node(node, "rescue") is not None:
        return
    _remove(node, "os", "boot", *_KERNEL)
    _shift_boot_order(node, 1)
    _put_rescue_disk(node, disk)
    config = disk_node(node, "config")
    if config_drive is not None and config is None:
        name = CONFIG_DRIVE_NAME
        if name in _names(node):
            name = free_name(_VIRTIO, _names(node))
        _devices(node).append(_config_disk(config_drive, name).to_xml())
    elif config_drive is not None and config is not None:
        _source(config).set("file", str(config_drive))


def leave_rescue(node: Node, rescue: RescueMetadata) -> None:
    """Makes a <domain> what it was; nothing where it is that already."""
    disk = disk_node(node, "rescue")
    if disk is None:
        return
    root, config = disk_node(node, "root"), disk_node(node, "config")
    if root is not None:
        _move(disk, root, "target", "address")
    _devices(node).remove(disk)
    _shift_boot_order(node, -1)
    if config is not None and rescue.config_drive:
        _source(config).set("file", rescue.config_drive)
    elif config is not None:
        _devices(node).remove(config)
    kept = zip(_KERNEL, (rescue.kernel, rescue.ramdisk, rescue.kernel_args), strict=True)
    for tag, text in kept:
        if text:
            etree.SubElement(_os(node), tag).text = text
    for kind in rescue.boot.split():
        etree.SubElement(_os(node), "boot", dev=kind)


def disk_node(node: Node, role: str) -> Node | None:
    """The <disk> of a role that an instance has once."""
    for disk in node.iterfind("devices/disk"):
        alias = disk.find("alias")
        if alias is not None and alias.get("name") == f"{ALIAS_PREFIX}{role}":
            return disk
    return None


def _put_rescue_disk(node: Node, path: Path) -> None:
    devices, root = _devices(node), disk_node(node, "root")
    disk = _rescue_disk(path, free_name(_VIRTIO, _names(node))).to_xml()
    if root is None:
        devices.insert(0, disk)
        return
    free = disk.findall("target")
    devices.insert(devices.index(root), disk)
    _move(root, disk, "target", "address")
    root.extend(free)


def _move(giver: Node, taker: Node, *tags: str) -> None:
    """Gives child elements of a node to another one, in place of its own."""
    for tag in tags:
        for own in taker.findall(tag):
            taker.remove(own)
        taker.extend(giver.findall(tag))


def _shift_boot_order(node: Node, by: int) -> None:
    """Ranks of all devices that are booted from, in the order in which they are."""
    for boot in node.iterfind("devices/*/boot"):
        boot.set("order", str(int(boot.get("order", "1")) + by))


def _rescue_disk(path: Path, name: str) -> Disk:
    return Disk(
        type="file", device="disk", driver_name="qemu", format="qcow2", discard="unmap",
        source_file=str(path), target=name, bus="virtio", boot_order=1,
        alias=f"{ALIAS_PREFIX}rescue",
    )  # fmt: skip


def _config_disk(path: Path, name: str) -> Disk:
    return Disk(
        type="file", device="disk", driver_name="qemu", format="raw", source_file=str(path),
        target=name, bus="virtio", read_only=True, alias=f"{ALIAS_PREFIX}config",
    )  # fmt: skip


def _names(node: Node) -> set[str]:
    return {disk.target or "" for disk in Domain.from_xml(node).disks}


def _devices(node: Node) -> Node:
    found = node.find("devices")
    assert found is not None, "a domain has devices"  # noqa: S101
    return found


def _os(node: Node) -> Node:
    found = node.find("os")
    assert found is not None, "a domain has an <os>"  # noqa: S101
    return found


def _source(disk: Node) -> Node:
    found = disk.find("source")
    return etree.SubElement(disk, "source") if found is None else found


def _remove(node: Node, holder: str, *tags: str) -> None:
    found = node.find(holder)
    for tag in tags:
        for child in [] if found is None else found.findall(tag):
            found.remove(child)  # type: ignore[union-attr]
