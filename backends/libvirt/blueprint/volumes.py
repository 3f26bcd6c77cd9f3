"""Volumes as disks of a domain."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from virtrpc.v1 import spec_pb2
from virtrpc.v1.spec_pb2 import DiskQos, VolumeConnection

from backends.libvirt.attached_disks import BUSES, DEVICE_TYPES, FORMATS, volume_alias
from backends.libvirt.xml.disk import Auth, BackingFile, Disk, Encryption, IoTune, StorageHost
from backends.libvirt.xml.secret import CEPH, ISCSI, LUKS, secret_uuid
from backends.plan.disks import PlannedDisk
from backends.volumes.attached import ISCSI_PORT, NBD_PORT, format_of
from backends.volumes.storage import ChainFile, monitors

_BUS_NAMES: Mapping[int, str] = {bus: name for name, bus in BUSES.items()}
_KINDS: Mapping[int, str] = {kind: name for name, kind in DEVICE_TYPES.items()}
_FORMAT_NAMES: Mapping[int, str] = {number: name for name, number in FORMATS.items()}
_OF_PASSPHRASE = "passphrase"  # noqa: S105 - the kind of a secret, not one
_CDROM, _LUN = spec_pb2.DISK_DEVICE_TYPE_CDROM, spec_pb2.DISK_DEVICE_TYPE_LUN


@dataclass(frozen=True, kw_only=True)
class LocatedVolume:
    """A volume by the path where it really is, and what it is based on."""

    volume: VolumeConnection
    chain: Sequence[ChainFile] = ()


def volume_disk(
    disk: PlannedDisk, located: LocatedVolume, *, instance_id: str, initiator: str
) -> Disk:
    """A volume as a disk element; secrets are only named in it."""
    volume, lun = located.volume, disk.device_type == _LUN
    made = Disk(
        type="network",
        device=_KINDS[disk.device_type],
        driver_name="qemu",
        format=_FORMAT_NAMES[format_of(volume)],
        # Who else writes to it, on another host, does so behind the page cache's back.
        cache="none" if volume.multi_attach or volume.HasField("local_block") else None,
        discard="unmap" if volume.discard else None,
        target=disk.device_name,
        bus=_BUS_NAMES[disk.bus],
        iotune=_iotune(volume.qos) if volume.qos != DiskQos() else None,
        read_only=volume.read_only or disk.device_type == _CDROM,
        shareable=volume.multi_attach,
        # QEMU gives a LUN that is passed through no serial number: its alias has the volume.
        serial=None if lun else disk.serial,
        boot_order=None if disk.boot_index is None else disk.boot_index + 1,
        alias=volume_alias(disk.attachment_id, volume.volume_id if lun else ""),
    )
    add_source(made, located, initiator)
    _name_secrets(made, volume, instance_id, disk.attachment_id)
    return made


def mirror_target(disk: Disk) -> Disk:
    """What a mirror to a disk needs of it: where the bytes go."""
    return Disk(
        type=disk.type,
        driver_name="qemu",
        format=disk.format,
        source_file=disk.source_file,
        source_device=disk.source_device,
        protocol=disk.protocol,
        source_name=disk.source_name,
        tls=disk.tls,
        hosts=disk.hosts,
        initiator=disk.initiator,
        auth=disk.auth,
        encryption=disk.encryption,
        chain=disk.chain,
        target=disk.target,
    )


def add_source(made: Disk, located: LocatedVolume, initiator: str) -> None:
    """Says where the bytes of a disk are."""
    volume, kind = located.volume, located.volume.WhichOneof("source")
    if kind == "local_file":
        made.type, made.source_file = "file", volume.local_file.path
        made.chain = [
            BackingFile(type="file", format=file.format, file=str(file.path))
            for file in located.chain
        ]
    elif kind == "local_block":
        made.type, made.source_device = "block", volume.local_block.path
    elif kind == "nbd":
        _add_nbd(made, volume.nbd)
    elif kind == "iscsi":
        iscsi = volume.iscsi
        made.protocol, made.source_name = "iscsi", f"{iscsi.target_iqn}/{iscsi.lun}"
        made.hosts = [StorageHost(name=iscsi.host, port=iscsi.port or ISCSI_PORT)]
        made.initiator = initiator
    elif kind == "rbd":
        made.protocol, made.source_name = "rbd", f"{volume.rbd.pool}/{volume.rbd.image}"
        made.hosts = [StorageHost(name=name, port=port) for name, port in monitors(volume)]


def _add_nbd(made: Disk, nbd: spec_pb2.NbdVolume) -> None:
    made.protocol, made.source_name = "nbd", nbd.export or None
    made.tls = "yes" if nbd.tls else None
    if nbd.socket_path:
        made.hosts = [StorageHost(transport="unix", socket=nbd.socket_path)]
    else:
        made.hosts = [StorageHost(name=nbd.host, port=nbd.port or NBD_PORT, transport="tcp")]


def _name_secrets(
    made: Disk, volume: VolumeConnection, instance_id: str, attachment_id: str
) -> None:
    if volume.HasField("encryption"):
        secret = secret_uuid(instance_id, attachment_id, LUKS)
        made.encryption = Encryption(format="luks", secret_type=_OF_PASSPHRASE, secret_uuid=secret)
    user, use = volume.iscsi.chap_username, ISCSI
    if volume.HasField("rbd"):
        user, use = volume.rbd.username, CEPH
    if user:
        secret = secret_uuid(instance_id, attachment_id, use)
        made.auth = Auth(username=user, secret_type=use, secret_uuid=secret)


def _iotune(qos: DiskQos) -> IoTune:
    return IoTune(
        total_bytes_per_s=qos.total_bytes_per_s or None,
        read_bytes_per_s=qos.read_bytes_per_s or None,
        write_bytes_per_s=qos.write_bytes_per_s or None,
        total_iops=qos.total_iops or None,
        read_iops=qos.read_iops or None,
        write_iops=qos.write_iops or None,
        burst_total_bytes_per_s=qos.burst_total_bytes_per_s or None,
        burst_total_iops=qos.burst_total_iops or None,
    )
