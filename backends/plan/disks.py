"""The disks of an instance: in which order, under which names, how large.

Names go by bus, as Nova gives them: the disk that is booted from first, the flavor's
ephemeral and swap disks, the further ones in their order, the config drive last ("vdz").
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from virtrpc.v1 import spec_pb2
from virtrpc.v1.spec_pb2 import BlockDevice, DiskBus, DiskDeviceType, InstanceSpec, VolumeConnection

from backends.errors import ContractError, InvalidArgumentError, UnsupportedError
from backends.plan.device_names import DeviceNames, chosen_bus, name_prefix, plain_name

BYTES_PER_MIB, BYTES_PER_GIB = 1 << 20, 1 << 30
CONFIG_DRIVE_NAME = "vdz"
OWN_ROLES = ("root", "ephemeral", "swap", "config")
"""Of disks that are made with an instance."""
_BUSES_NOT_CARRIED_OUT = (spec_pb2.DISK_BUS_IDE, spec_pb2.DISK_BUS_NVME)
_HARD_DISK = (spec_pb2.DISK_DEVICE_TYPE_UNSPECIFIED, spec_pb2.DISK_DEVICE_TYPE_DISK)


@dataclass(frozen=True, kw_only=True)
class PlannedDisk:
    """A disk as it is to be: made with the instance, or a volume."""

    role: str
    """One of OWN_ROLES, or "volume"."""
    device_name: str
    bus: "DiskBus.ValueType"
    device_type: "DiskDeviceType.ValueType" = spec_pb2.DISK_DEVICE_TYPE_DISK
    size_bytes: int = 0
    """0: as large as what it is made from."""
    filesystem: str = ""
    """Made on it: a type of mkfs, or "swap"; empty: none."""
    boot_index: int | None = None
    """Rank in the boot order, 0 first; None: not booted from."""
    serial: str = ""
    tag: str = ""
    volume: VolumeConnection | None = None
    """How a volume is reached; None: it lives and dies with the instance."""
    attachment_id: str = ""
    """Of a volume: never empty."""
    field: str = ""
    """Path of the request field that asks for it."""


def planned_disks(
    spec: InstanceSpec, *, config_drive: bool
) -> tuple[tuple[PlannedDisk, ...], list[ContractError]]:
    """The disks of a specification, and everything that is wrong with them."""
    names = _Names(spec, config_drive=config_drive)
    disks = [*_flavor_disks(spec, names)]
    for index, device in enumerate(spec.block_devices):
        field = f"spec.block_devices[{index}]"
        if index not in names.faulty:
            make = planned_volume if device.HasField("volume") else _ephemeral
            disks.append(make(device, names.of(device), field=field))
    if config_drive:
        virtio = spec_pb2.DISK_BUS_VIRTIO
        disks.append(
            PlannedDisk(
                role="config", device_name=CONFIG_DRIVE_NAME, bus=virtio, field="spec.guest"
            )
        )
    errors = [*names.errors, *_boot_index_errors(spec), *_attached_twice(spec)]
    return tuple(_in_boot_order(disks)), errors


class _Names:
    """Device names: those that are asked for, and the next free one of a bus."""

    def __init__(self, spec: InstanceSpec, *, config_drive: bool) -> None:
        self.errors: list[ContractError] = []
        self.faulty: set[int] = set()
        taken = {CONFIG_DRIVE_NAME} if config_drive else set()
        if spec.image.image_id:
            taken.add("vda")
        self._names = DeviceNames(taken)
        for index, device in enumerate(spec.block_devices):
            try:
                self._claim(device, f"spec.block_devices[{index}]")
            except ContractError as error:
                self.errors.append(error)
                self.faulty.add(index)
        self._root = None if spec.image.image_id else self._without_name(spec)
        self._root_name = self.free(disk_bus(self._root)) if self._root is not None else ""

    def _without_name(self, spec: InstanceSpec) -> BlockDevice | None:
        """The disk that an instance without a root disk boots from, where it has no name yet."""
        booted = (
            device
            for index, device in enumerate(spec.block_devices)
            if index not in self.faulty and device.HasField("boot_index")
        )
        first = min(booted, key=lambda device: device.boot_index, default=None)
        return None if first is None or asked_name(first) else first

    def free(self, bus: "DiskBus.ValueType") -> str:
        """The next free name of a bus, now taken."""
        return self._names.free(name_prefix(bus))

    def of(self, device: BlockDevice) -> str:
        """The name of a device: the one claimed, or a free one."""
        if device is self._root:
            return self._root_name
        return asked_name(device) or self.free(disk_bus(device))

    def _claim(self, device: BlockDevice, field: str) -> None:
        check_device(device, field)
        name = asked_name(device)
        if name:
            self._names.claim(name, name_prefix(disk_bus(device)), field=f"{field}.device_name")


def free_name(bus: "spec_pb2.DiskBus.ValueType", taken: Iterable[str]) -> str:
    """The first name of a bus that no disk has."""
    return DeviceNames(taken).free(name_prefix(bus))


def asked_name(device: BlockDevice) -> str:
    """The name that is asked for, without its folder; empty: any."""
    return plain_name(device.device_name)


def disk_bus(device: BlockDevice) -> "DiskBus.ValueType":
    """The bus of a disk, never unspecified."""
    return chosen_bus(device.bus, device.device_name, device.device_type)


def check_device(device: BlockDevice, field: str) -> None:
    """That bus and device type are carried out and go together; raises what is wrong."""
    bus, kind = disk_bus(device), device.device_type
    if device.HasField("ephemeral") and kind not in _HARD_DISK:
        why = "an ephemeral disk is a hard disk"
        raise InvalidArgumentError(why, field=f"{field}.device_type")
    if bus in _BUSES_NOT_CARRIED_OUT:
        name = DiskBus.Name(bus).lower()
        raise UnsupportedError(name, why="no machine type here has it", field=f"{field}.bus")
    if kind == spec_pb2.DISK_DEVICE_TYPE_FLOPPY:
        why = "no machine type here has floppy disks"
        raise UnsupportedError("disk_floppy", why=why, field=f"{field}.device_type")
    if kind == spec_pb2.DISK_DEVICE_TYPE_CDROM and bus == spec_pb2.DISK_BUS_VIRTIO:
        raise InvalidArgumentError("virtio has no CD-ROMs", field=f"{field}.bus")
    if kind == spec_pb2.DISK_DEVICE_TYPE_LUN:
        _check_lun(device, bus, field)


def _check_lun(device: BlockDevice, bus: "DiskBus.ValueType", field: str) -> None:
    if bus != spec_pb2.DISK_BUS_SCSI:
        raise InvalidArgumentError("a LUN is passed through by SCSI", field=f"{field}.bus")
    if not device.volume.HasField("local_block"):
        why = "only a block device of the host can be passed through as a LUN"
        raise InvalidArgumentError(why, field=f"{field}.device_type")


def planned_volume(device: BlockDevice, name: str, *, field: str) -> PlannedDisk:
    """A volume under a name."""
    volume = device.volume
    return PlannedDisk(
        role="volume",
        device_name=name,
        bus=disk_bus(device),
        device_type=device.device_type or spec_pb2.DISK_DEVICE_TYPE_DISK,
        boot_index=device.boot_index if device.HasField("boot_index") else None,
        serial=volume.volume_id,
        tag=device.tag,
        volume=volume,
        attachment_id=device.attachment_id or volume.volume_id,
        field=f"{field}.volume",
    )


def _flavor_disks(spec: InstanceSpec, names: _Names) -> Iterator[PlannedDisk]:
    virtio, flavor = spec_pb2.DISK_BUS_VIRTIO, spec.flavor
    if spec.image.image_id:
        yield PlannedDisk(
            role="root", device_name="vda", bus=virtio, boot_index=0,
            size_bytes=flavor.root_disk_gib * BYTES_PER_GIB, field="spec.flavor.root_disk_gib",
        )  # fmt: skip
    if flavor.ephemeral_disk_gib:
        yield PlannedDisk(
            role="ephemeral", device_name=names.free(virtio), bus=virtio,
            size_bytes=flavor.ephemeral_disk_gib * BYTES_PER_GIB,
            field="spec.flavor.ephemeral_disk_gib",
        )  # fmt: skip
    if flavor.swap_mib:
        yield PlannedDisk(
            role="swap", device_name=names.free(virtio), bus=virtio, filesystem="swap",
            size_bytes=flavor.swap_mib * BYTES_PER_MIB, field="spec.flavor.swap_mib",
        )  # fmt: skip


def _ephemeral(device: BlockDevice, name: str, *, field: str) -> PlannedDisk:
    return PlannedDisk(
        role="swap" if device.ephemeral.filesystem == "swap" else "ephemeral",
        device_name=name,
        bus=disk_bus(device),
        size_bytes=device.ephemeral.size_mib * BYTES_PER_MIB,
        filesystem=device.ephemeral.filesystem,
        boot_index=device.boot_index if device.HasField("boot_index") else None,
        serial=device.attachment_id,
        tag=device.tag,
        field=f"{field}.ephemeral",
    )


def _in_boot_order(disks: list[PlannedDisk]) -> Iterator[PlannedDisk]:
    """The disks with boot indices without gaps; the root disk before others of its index."""
    order = sorted(
        (disk for disk in disks if disk.boot_index is not None),
        key=lambda disk: (disk.boot_index, disk.role != "root"),
    )
    for disk in disks:
        yield replace(disk, boot_index=order.index(disk)) if disk in order else disk


def _boot_index_errors(spec: InstanceSpec) -> Iterator[ContractError]:
    seen: set[int] = set()
    for index, device in enumerate(spec.block_devices):
        if not device.HasField("boot_index"):
            continue
        if device.boot_index in seen:
            yield InvalidArgumentError(
                f"two disks have the boot_index {device.boot_index}",
                field=f"spec.block_devices[{index}].boot_index",
                reason="BOOT_INDEX_TAKEN",
            )
        seen.add(device.boot_index)


def _attached_twice(spec: InstanceSpec) -> Iterator[ContractError]:
    """Volumes and attachments that are named more than once."""
    volumes: set[str] = set()
    attachments: set[str] = set()
    for index, device in enumerate(spec.block_devices):
        if not device.HasField("volume"):
            continue
        field, volume_id = f"spec.block_devices[{index}]", device.volume.volume_id
        attachment_id = device.attachment_id or volume_id
        if volume_id in volumes:
            why = f"another disk is volume {volume_id}"
            yield InvalidArgumentError(why, field=f"{field}.volume.volume_id")
        elif attachment_id in attachments:
            why = f"another disk has the attachment {attachment_id}"
            yield InvalidArgumentError(why, field=f"{field}.attachment_id")
        volumes.add(volume_id)
        attachments.add(attachment_id)
