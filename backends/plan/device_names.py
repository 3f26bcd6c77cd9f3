"""Device names: which a bus uses, which are taken, and the next free one."""

import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice, product
from string import ascii_lowercase

from virtrpc.v1 import spec_pb2
from virtrpc.v1.spec_pb2 import DiskBus, DiskDeviceType

from backends.errors import InvalidArgumentError, NoRoomError

PREFIXES: Mapping[int, str] = {
    spec_pb2.DISK_BUS_VIRTIO: "vd",
    spec_pb2.DISK_BUS_SCSI: "sd",
    spec_pb2.DISK_BUS_SATA: "sd",
    spec_pb2.DISK_BUS_USB: "sd",
    spec_pb2.DISK_BUS_IDE: "hd",
    spec_pb2.DISK_BUS_NVME: "nvme",
}
_FLOPPY = "fd"
_BUS_OF_PREFIX = {
    "vd": spec_pb2.DISK_BUS_VIRTIO,
    "sd": spec_pb2.DISK_BUS_SCSI,
    "hd": spec_pb2.DISK_BUS_IDE,
    "nv": spec_pb2.DISK_BUS_NVME,
}
_MOST = {"hd": 4, _FLOPPY: 2, "nvme": 256}


def plain_name(name: str) -> str:
    """A name without its folder."""
    return name.removeprefix("/dev/")


def chosen_bus(
    bus: "DiskBus.ValueType", name: str, device_type: "DiskDeviceType.ValueType"
) -> "DiskBus.ValueType":
    """The bus that is asked for, else that of the name, else SATA for a CD-ROM or virtio."""
    if bus != spec_pb2.DISK_BUS_UNSPECIFIED:
        return bus
    cdrom = device_type == spec_pb2.DISK_DEVICE_TYPE_CDROM
    default = spec_pb2.DISK_BUS_SATA if cdrom else spec_pb2.DISK_BUS_VIRTIO
    of_name = _BUS_OF_PREFIX.get(plain_name(name)[:2], default)
    return default if cdrom and of_name == spec_pb2.DISK_BUS_SCSI else of_name


def is_name(name: str, prefix: str) -> bool:
    """Whether hypervisor and guest would call a disk so: a prefix and one or two letters."""
    pattern = r"nvme\d{1,3}n1" if prefix == "nvme" else prefix + "[a-z]{1,2}"
    return re.fullmatch(pattern, name) is not None


class DeviceNames:
    """Names that are taken, and those that are left."""

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self._taken = set(taken)

    def claim(self, name: str, prefix: str, *, field: str) -> str:
        """Takes a name that is asked for; raises InvalidArgumentError where that cannot be."""
        if not is_name(name, prefix):
            why = f"{name} is no name of the disk's bus"
            raise InvalidArgumentError(why, field=field, reason="DEVICE_NAME_MISMATCH")
        if name in self._taken:
            why = f"another disk has the name {name}"
            raise InvalidArgumentError(why, field=field, reason="DEVICE_NAME_TAKEN")
        self._taken.add(name)
        return name

    def free(self, prefix: str, *, field: str = "") -> str:
        """The next free name, now taken; raises NoRoomError where a bus has no more."""
        for name in _names(prefix):
            if name not in self._taken:
                self._taken.add(name)
                return name
        raise NoRoomError(f"all names {prefix}… are taken", reason="NO_SLOT", field=field)


def name_prefix(
    bus: "DiskBus.ValueType",
    device_type: "DiskDeviceType.ValueType" = spec_pb2.DISK_DEVICE_TYPE_DISK,
) -> str:
    """How the names of a bus begin; those of floppy disks are of their own."""
    return _FLOPPY if device_type == spec_pb2.DISK_DEVICE_TYPE_FLOPPY else PREFIXES[bus]


def _names(prefix: str) -> Iterator[str]:
    """Names in their order: "vda" to "vdz", then "vdaa"; "nvme0n1", "nvme1n1"."""
    return islice(_all_names(prefix), _MOST.get(prefix))


def _all_names(prefix: str) -> Iterator[str]:
    if prefix == "nvme":
        yield from (f"nvme{number}n1" for number in range(_MOST[prefix]))
        return
    for length in (1, 2):
        for letters in product(ascii_lowercase, repeat=length):
            yield prefix + "".join(letters)
