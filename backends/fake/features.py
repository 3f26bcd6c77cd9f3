"""What the fake host can do, which is everything, and what it has room for."""

from collections.abc import Iterable, Mapping

from virtrpc.v1.instance_pb2 import Instance

from backends.plan.disks import BYTES_PER_GIB
from backends.plan.room import Room

MEMORY_MIB = 1 << 20
DISK_BYTES = (1 << 10) * BYTES_PER_GIB
_NAMES = (
    *("kvm", "cpu_pinning", "numa", "hugepages", "uefi", "secure_boot", "vtpm", "rng"),
    *(
        "watchdog",
        "guest_agent",
        "virtiofs",
        "virtiofs_read_only",
        "boot_from_volume",
        "vnc",
        "spice",
    ),
    *("config_drive_openstack", "config_drive_nocloud", "image_raw", "image_qcow2"),
    *(f"filesystem_{name}" for name in ("ext2", "ext3", "ext4", "vfat", "xfs", "swap")),
    *(f"volume_{name}" for name in ("local_file", "local_block", "nbd", "iscsi", "rbd", "nfs")),
    *(f"interface_{name}" for name in ("user", "bridge", "libvirt_network", "open_vswitch")),
    *(f"interface_{name}" for name in ("macvtap", "tap", "vhost_user", "host_device")),
    *("interface_qos", "interface_hotplug", "anti_spoofing", "security_groups"),
)
FEATURES: Mapping[str, str] = dict.fromkeys(_NAMES, "")

_SWITCHED_OFF = "the fake was told to lack it (--fake-lacks)"


def lacking(names: str) -> tuple[Mapping[str, str], Mapping[str, str]]:
    """Of capabilities separated by commas: the verbs that are missing, and all features."""
    lacked = {name.strip(): _SWITCHED_OFF for name in names.split(",") if name.strip()}
    verbs = {name: why for name, why in lacked.items() if name not in FEATURES}
    features = {name: lacked.get(name, why) for name, why in FEATURES.items()}
    return verbs, features


def free_room(instances: Iterable[Instance]) -> Room:
    """What the instances leave of a host with 1 TiB of memory and 1 TiB of disk."""
    memory_mib, disk_bytes = MEMORY_MIB, DISK_BYTES
    for instance in instances:
        flavor = instance.spec.flavor
        memory_mib -= flavor.memory_mib
        disk_bytes -= (flavor.root_disk_gib + flavor.ephemeral_disk_gib) * BYTES_PER_GIB
    return Room(memory_mib=memory_mib, disk_bytes=disk_bytes)
