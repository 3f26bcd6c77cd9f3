"""Volumes of a domain, as they would be asked for anew. Pure."""

from virtrpc.v1.spec_pb2 import BlockDevice, RbdVolume, VolumeConnection

from backends.libvirt.attached_disks import read_disk
from backends.libvirt.xml.disk import Disk
from backends.libvirt.xml.element import Node
from backends.volumes.devices import device_at, device_of


def volume_devices(domain: Node) -> list[BlockDevice]:
    """Those of a <domain>, in its order; secrets are libvirt's, and not in it."""
    disks = (Disk.from_xml(node) for node in domain.iterfind("devices/disk"))
    found = (_device(disk) for disk in disks if read_disk(disk).volume_id)
    return [device for device in found if device is not None]


def _device(disk: Disk) -> BlockDevice | None:
    attached = read_disk(disk)
    if disk.protocol == "rbd":
        return device_at(attached, VolumeConnection(volume_id=attached.volume_id, rbd=_rbd(disk)))
    device = device_of(attached)
    if device is not None and disk.auth is not None:
        device.volume.iscsi.chap_username = disk.auth.username or ""
    if device is not None and disk.tls == "yes":
        device.volume.nbd.tls = True
    return device


def _rbd(disk: Disk) -> RbdVolume:
    pool, _, image = (disk.source_name or "").partition("/")
    username = "" if disk.auth is None else disk.auth.username
    return RbdVolume(
        pool=pool,
        image=image,
        username=username or "",
        monitors=[_monitor(host.name or "", host.port) for host in disk.hosts],
    )


def _monitor(name: str, port: int | None) -> str:
    host = f"[{name}]" if ":" in name else name
    return f"{host}:{port}" if port else host
