"""Volumes that an instance has, as they would be asked for anew: without their secrets."""

from virtrpc.v1.instance_pb2 import AttachedDisk
from virtrpc.v1.spec_pb2 import BlockDevice, DiskDeviceType, VolumeConnection

from backends.volumes.source_uri import connection_of

_CDROM = DiskDeviceType.DISK_DEVICE_TYPE_CDROM


def device_of(disk: AttachedDisk) -> BlockDevice | None:
    """A volume as AttachVolume takes it; None where its source does not say enough."""
    volume = connection_of(disk.source, volume_id=disk.volume_id, file_format=disk.format)
    return None if volume is None else device_at(disk, volume)


def device_at(disk: AttachedDisk, volume: VolumeConnection) -> BlockDevice:
    """A volume as AttachVolume takes it; `volume` says where it is, and is filled in."""
    volume.read_only = disk.read_only and disk.device_type != _CDROM
    volume.multi_attach, volume.discard = disk.multi_attach, disk.discard
    if disk.HasField("qos"):
        volume.qos.CopyFrom(disk.qos)
    if disk.encrypted:
        volume.encryption.SetInParent()
    device = BlockDevice(
        attachment_id=disk.attachment_id,
        device_name=disk.device_name,
        bus=disk.bus,
        device_type=disk.device_type,
        volume=volume,
    )
    if disk.HasField("boot_index"):
        device.boot_index = disk.boot_index
    return device
