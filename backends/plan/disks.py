"""The disks of an instance's own: in which order, under which names, how large.

Names go by bus, as Nova gives them: the root disk first, the flavor's ephemeral
and swap disks, the further ones in their order, the config drive last of all ("vdz").
"""

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product
from string import ascii_lowercase

from virtrpc.v1 import spec_pb2
from virtrpc.v1.spec_pb2 import BlockDevice, InstanceSpec

from backends.errors import ContractError, InvalidArgumentError, UnsupportedError

BYTES_PER_MIB, BYTES_PER_GIB = 1 << 20, 1 << 30
CONFIG_DRIVE_NAME = "vdz"
_PREFIXES: Mapping[int, str] = {
    spec_pb2.DISK_BUS_VIRTIO: "vd",
    spec_pb2.DISK_BUS_SCSI: "sd",
    spec_pb2.DISK_BUS_SATA: "sd",
    spec_pb2.DISK_BUS_USB: "sd",
    spec_pb2.DISK_BUS_IDE: "hd",
    spec_pb2.DISK_BUS_NVME: "nvme",
}
_BUS_OF_PREFIX = {
    "vd": spec_pb2.DISK_BUS_VIRTIO,
    "sd": spec_pb2.DISK_BUS_SCSI,
    "hd": spec_pb2.DISK_BUS_IDE,
}
OWN_ROLES = ("root", "ephemeral", "swap", "config")
"""Of disks that are made with an instance."""
_BUSES_NOT_CARRIED_OUT = (spec_pb2.DISK_BUS_IDE, spec_pb2.DISK_BUS_NVME)
_HARD_DISK = (spec_pb2.DISK_DEVICE_TYPE_UNSPECIFIED, spec_pb2.DISK_DEVICE_TYPE_DISK)


@dataclass(frozen=True, kw_only=True)
class PlannedDisk:
    """A disk that is made with the instance, and lives and dies with it."""

    role: str
    """One of OWN_ROLES."""
    device_name: str
    bus: "spec_pb2.DiskBus.ValueType"
    size_bytes: int = 0
    """0: as large as what it is made from."""
    filesystem: str = ""
    """Made on it: a type of mkfs, or "swap"; empty: none."""
    boot_index: int | None = None
    """Rank in the boot order, 0 first; None: not booted from."""
    serial: str = ""
    tag: str = ""
    field: str = ""
    """Path of the request field that asks for it."""


def planned_disks(
    spec: InstanceSpec, *, config_drive: bool
) -> tuple[tuple[PlannedDisk, ...], list[ContractError]]:
    """The disks of a specification, and everything that is wrong with them."""
    names = _Names(spec, config_drive=config_drive)
    disks = [*_flavor_disks(spec, names)]
    for index, device in enumerate(spec.block_devices):
        if device.HasField("ephemeral") and index not in names.faulty:
            disks.append(_ephemeral(device, f"spec.block_devices[{index}]", names))
    if config_drive:
        virtio = spec_pb2.DISK_BUS_VIRTIO
        disks.append(
            PlannedDisk(
                role="config", device_name=CONFIG_DRIVE_NAME, bus=virtio, field="spec.guest"
            )
        )
    return tuple(_in_boot_order(disks)), [*names.errors, *_boot_index_errors(spec)]


class _Names:
    """Device names: those that are asked for, and the next free one of a bus."""

    def __init__(self, spec: InstanceSpec, *, config_drive: bool) -> None:
        self.errors: list[ContractError] = []
        self.faulty: set[int] = set()
        self._taken = {CONFIG_DRIVE_NAME} if config_drive else set()
        if spec.image.image_id:
            self._taken.add("vda")
        for index, device in enumerate(spec.block_devices):
            try:
                self._claim(device, f"spec.block_devices[{index}]")
            except ContractError as error:
                self.errors.append(error)
                self.faulty.add(index)

    def free(self, bus: "spec_pb2.DiskBus.ValueType") -> str:
        """The next free name of a bus, now taken."""
        name = free_name(bus, self._taken)
        self._taken.add(name)
        return name

    def _claim(self, device: BlockDevice, field: str) -> None:
        _check_device(device, field)
        name, at = asked_name(device), f"{field}.device_name"
        if not name:
            return
        if not name.startswith(_PREFIXES[disk_bus(device)]):
            why = f"{name} is no name of the disk's bus"
            raise InvalidArgumentError(why, field=at, reason="DEVICE_NAME_MISMATCH")
        if name in self._taken:
            why = f"another disk has the name {name}"
            raise InvalidArgumentError(why, field=at, reason="DEVICE_NAME_TAKEN")
        self._taken.add(name)


def free_name(bus: "spec_pb2.DiskBus.ValueType", taken: Container[str]) -> str:
    """The first name of a bus that no disk has."""
    return next(name for name in _names(_PREFIXES[bus]) if name not in taken)


def asked_name(device: BlockDevice) -> str:
    """The name that is asked for, without its folder; empty: any."""
    return device.device_name.removeprefix("/dev/")


def disk_bus(device: BlockDevice) -> "spec_pb2.DiskBus.ValueType":
    """The bus of a disk: the one asked for, else that of its name, else virtio."""
    if device.bus != spec_pb2.DISK_BUS_UNSPECIFIED:
        return device.bus
    return _BUS_OF_PREFIX.get(asked_name(device)[:2], spec_pb2.DISK_BUS_VIRTIO)


def _check_device(device: BlockDevice, field: str) -> None:
    if not device.HasField("ephemeral"):
        return
    if device.device_type not in _HARD_DISK:
        why = "an ephemeral disk is a hard disk"
        raise InvalidArgumentError(why, field=f"{field}.device_type")
    bus = disk_bus(device)
    if bus in _BUSES_NOT_CARRIED_OUT:
        name = spec_pb2.DiskBus.Name(bus).lower()
        raise UnsupportedError(name, why="no machine type here has it", field=f"{field}.bus")


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


def _ephemeral(device: BlockDevice, field: str, names: _Names) -> PlannedDisk:
    bus = disk_bus(device)
    return PlannedDisk(
        role="swap" if device.ephemeral.filesystem == "swap" else "ephemeral",
        device_name=asked_name(device) or names.free(bus),
        bus=bus,
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


def _names(prefix: str) -> Iterator[str]:
    """Names of a bus: "vda" to "vdz", then "vdaa"."""
    for length in (1, 2):
        for letters in product(ascii_lowercase, repeat=length):
            yield prefix + "".join(letters)
