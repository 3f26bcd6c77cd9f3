"""Disks of a domain as the contract tells them. Pure.

A disk's alias has its role, and a volume's its attachment: "ua-volume-ATTACHMENT"; its
serial number is the volume's id. The running machine keeps both for as long as it runs,
also when the volume was replaced by another: then the configuration knows better. So it
does of the disks of an adopted domain, which runs with the names that it was started with.
"""

from collections.abc import Iterable
from urllib.parse import quote

from virtrpc.v1 import spec_pb2
from virtrpc.v1.instance_pb2 import AttachedDisk
from virtrpc.v1.spec_pb2 import DiskQos

from backends.libvirt.xml.disk import Disk, IoTune

ALIAS_PREFIX = "ua-"  # libvirt keeps aliases that begin so as they are given
VOLUME = "volume"
BUSES = {
    "virtio": spec_pb2.DISK_BUS_VIRTIO,
    "scsi": spec_pb2.DISK_BUS_SCSI,
    "sata": spec_pb2.DISK_BUS_SATA,
    "usb": spec_pb2.DISK_BUS_USB,
    "ide": spec_pb2.DISK_BUS_IDE,
}
FORMATS = {"raw": spec_pb2.DISK_FORMAT_RAW, "qcow2": spec_pb2.DISK_FORMAT_QCOW2}
DEVICE_TYPES = {
    "disk": spec_pb2.DISK_DEVICE_TYPE_DISK,
    "cdrom": spec_pb2.DISK_DEVICE_TYPE_CDROM,
    "lun": spec_pb2.DISK_DEVICE_TYPE_LUN,
    "floppy": spec_pb2.DISK_DEVICE_TYPE_FLOPPY,
}


def volume_alias(attachment_id: str, volume_id: str = "") -> str:
    """Alias of a volume's disk; with the volume's id where no serial number has it."""
    return f"{ALIAS_PREFIX}{VOLUME}-{attachment_id}" + (f"_{volume_id}" if volume_id else "")


def adopted_alias(attachment_id: str, volume_id: str, former: str) -> str:
    """As `volume_alias`, of a disk that whoever made it called otherwise, or not at all."""
    return f"{volume_alias(attachment_id, volume_id)}_{former}"


def former_alias(alias: str) -> str | None:
    """What a disk was called before it was adopted, empty: nothing; None: it was not adopted."""
    parts = alias.split("_", 2)
    return parts[2] if alias.startswith(volume_alias("")) and len(parts) > 2 else None


def read_disk(disk: Disk) -> AttachedDisk:
    """One disk."""
    alias = disk.alias or ""
    named = alias.removeprefix(ALIAS_PREFIX) if alias.startswith(ALIAS_PREFIX) else ""
    role, _, identity = named.partition("-")
    attachment_id, volume_id, *_ = [*identity.split("_"), ""]
    is_volume = role == VOLUME
    attached = AttachedDisk(
        device_name=disk.target or "",
        attachment_id=attachment_id if is_volume else "",
        volume_id=(volume_id or disk.serial or "") if is_volume else "",
        source=disk_source(disk),
        format=FORMATS.get(disk.format or "", spec_pb2.DISK_FORMAT_UNSPECIFIED),
        bus=BUSES.get(disk.bus or "", spec_pb2.DISK_BUS_UNSPECIFIED),
        device_type=DEVICE_TYPES.get(disk.device or "", spec_pb2.DISK_DEVICE_TYPE_UNSPECIFIED),
        read_only=disk.read_only,
        serial=disk.serial or "",
        role=role,
        multi_attach=disk.shareable,
        discard=disk.discard == "unmap",
        encrypted=disk.encryption is not None,
    )
    if disk.boot_order is not None:
        attached.boot_index = disk.boot_order - 1
    if disk.iotune is not None:
        attached.qos.CopyFrom(_qos(disk.iotune))
    return attached


def name_volumes(running: Iterable[AttachedDisk], configured: Iterable[AttachedDisk]) -> None:
    """Gives volumes of the running machine the identities that the configuration has."""
    known = {disk.device_name: disk for disk in configured if disk.role == VOLUME}
    for disk in running:
        own = known.get(disk.device_name)
        adopted = own is not None and not disk.role and disk.source == own.source
        if own is not None and (disk.role == VOLUME or adopted):
            disk.volume_id, disk.attachment_id = own.volume_id, own.attachment_id
            disk.role = VOLUME


def disk_source(disk: Disk) -> str:
    """Where a disk's bytes are, as backends.volumes.attached says it; empty: it has none."""
    if disk.protocol is None:
        return disk.source_file or disk.source_device or ""
    name, host = disk.source_name or "", disk.hosts[0] if disk.hosts else None
    if disk.protocol == "rbd" or host is None:
        return f"{disk.protocol}:{name}"
    if host.socket is not None:
        return f"{disk.protocol}+unix:///{quote(name)}?socket={quote(host.socket)}"
    server = f"[{host.name}]" if ":" in (host.name or "") else host.name
    path = quote(name) if disk.protocol == "nbd" else name
    return f"{disk.protocol}://{server}:{host.port}/{path}"


def _qos(tune: IoTune) -> DiskQos:
    return DiskQos(
        total_iops=tune.total_iops or 0,
        read_iops=tune.read_iops or 0,
        write_iops=tune.write_iops or 0,
        total_bytes_per_s=tune.total_bytes_per_s or 0,
        read_bytes_per_s=tune.read_bytes_per_s or 0,
        write_bytes_per_s=tune.write_bytes_per_s or 0,
        burst_total_iops=tune.burst_total_iops or 0,
        burst_total_bytes_per_s=tune.burst_total_bytes_per_s or 0,
    )
