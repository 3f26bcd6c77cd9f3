"""Volumes as disks of an instance: found by volume and attachment, compared with what is asked."""

from collections.abc import Iterable, Iterator
from urllib.parse import quote

from virtrpc.v1 import spec_pb2
from virtrpc.v1.instance_pb2 import AttachedDisk, Instance
from virtrpc.v1.spec_pb2 import BlockDevice, DiskFormat, DiskQos, VolumeConnection

from backends.plan.disks import PlannedDisk
from backends.volumes.refusals import volume_not_attached

NBD_PORT, ISCSI_PORT = 10809, 3260
VOLUME = "volume"


def source_of(volume: VolumeConnection) -> str:
    """Where a volume's bytes are: a path, or a URI without credentials."""
    kind = volume.WhichOneof("source")
    if kind == "nbd":
        nbd, name = volume.nbd, quote(volume.nbd.export)
        if nbd.socket_path:
            return f"nbd+unix:///{name}?socket={quote(nbd.socket_path)}"
        return f"nbd://{_host(nbd.host)}:{nbd.port or NBD_PORT}/{name}"
    if kind == "iscsi":
        iscsi = volume.iscsi
        portal = f"{_host(iscsi.host)}:{iscsi.port or ISCSI_PORT}"
        return f"iscsi://{portal}/{iscsi.target_iqn}/{iscsi.lun}"
    if kind == "rbd":
        return f"rbd:{volume.rbd.pool}/{volume.rbd.image}"
    if kind == "nfs":
        return f"nfs://{_host(volume.nfs.host)}{volume.nfs.export_path}/{volume.nfs.file_name}"
    path: str = getattr(volume, kind or "local_file").path
    return path


def _host(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def format_of(volume: VolumeConnection) -> "DiskFormat.ValueType":
    """The format of its bytes; never unspecified."""
    kind = volume.WhichOneof("source")
    if kind not in ("local_file", "nfs"):
        return spec_pb2.DISK_FORMAT_RAW
    declared: DiskFormat.ValueType = getattr(volume, kind).format
    return declared or spec_pb2.DISK_FORMAT_RAW


def attached(disk: PlannedDisk) -> AttachedDisk:
    """A planned volume as it is told once it is attached."""
    volume = disk.volume
    assert volume is not None  # noqa: S101
    made = AttachedDisk(
        device_name=disk.device_name,
        attachment_id=disk.attachment_id,
        volume_id=volume.volume_id,
        source=source_of(volume),
        format=format_of(volume),
        bus=disk.bus,
        device_type=disk.device_type,
        read_only=volume.read_only or disk.device_type == spec_pb2.DISK_DEVICE_TYPE_CDROM,
        serial=disk.serial,
        role=VOLUME,
        multi_attach=volume.multi_attach,
        discard=volume.discard,
        encrypted=volume.HasField("encryption"),
    )
    if disk.boot_index is not None:
        made.boot_index = disk.boot_index
    if volume.qos != DiskQos():
        made.qos.CopyFrom(volume.qos)
    return made


def is_same(found: AttachedDisk, asked: AttachedDisk, device: BlockDevice) -> bool:
    """Whether a volume is attached as asked; what `device` leaves empty may be anything."""
    wanted = AttachedDisk()
    wanted.CopyFrom(asked)
    wanted.serial = found.serial
    for name, given in (
        ("device_name", device.device_name),
        ("bus", device.bus),
        ("boot_index", device.HasField("boot_index")),
    ):
        if not given:
            wanted.ClearField(name)  # type: ignore[arg-type]
            if name != "boot_index" or found.HasField("boot_index"):
                setattr(wanted, name, getattr(found, name))
    return wanted == found


def volumes(instance: Instance) -> Iterator[AttachedDisk]:
    """The volumes of an instance: those that it will start with, then those only plugged in."""
    seen: set[str] = set()
    for disk in (*instance.persistent.disks, *instance.effective.disks):
        if disk.volume_id and disk.attachment_id not in seen:
            seen.add(disk.attachment_id)
            yield disk


def find(instance: Instance, volume_id: str, attachment_id: str = "") -> AttachedDisk | None:
    """A volume of an instance, by this attachment where one is given; None where it has none."""
    for disk in volumes(instance):
        if disk.volume_id == volume_id and attachment_id in ("", disk.attachment_id):
            return disk
    return None


def get(instance: Instance, volume_id: str, attachment_id: str = "") -> AttachedDisk:
    """As `find`; raises VOLUME_NOT_ATTACHED."""
    disk = find(instance, volume_id, attachment_id)
    if disk is None:
        raise volume_not_attached(volume_id)
    return disk


def is_plugged(instance: Instance, disk: AttachedDisk) -> bool:
    """Whether the running machine has a disk, by its attachment."""
    return any(d.attachment_id == disk.attachment_id for d in instance.effective.disks)


def users(
    instances: Iterable[Instance], wanted: AttachedDisk, *, but: str
) -> dict[str, AttachedDisk]:
    """Instances that have a volume, or its bytes, but one → the disk by which they do."""
    return {
        instance.instance_id: disk
        for instance in instances
        if instance.instance_id != but
        for disk in (*instance.persistent.disks, *instance.effective.disks)
        if disk.volume_id == wanted.volume_id or (disk.source and disk.source == wanted.source)
    }
