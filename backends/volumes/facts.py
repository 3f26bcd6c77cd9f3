"""VolumeFacts of every backend: host, names and filesystems as the other parts know them."""

import platform
from collections.abc import Callable, Mapping
from pathlib import Path

from virtrpc.v1 import spec_pb2
from virtrpc.v1 import volume_pb2 as pb
from virtrpc.v1.instance_pb2 import AttachedDisk, Instance
from virtrpc.v1.spec_pb2 import DiskBus

from backends.contract import VolumeFacts
from backends.errors import ContractError
from backends.host_facts import host_facts
from backends.plan.device_names import DeviceNames, chosen_bus, name_prefix, plain_name

_FILESYSTEM = "filesystem_"
_DISK = spec_pb2.DISK_DEVICE_TYPE_DISK


class HostVolumeFacts(VolumeFacts):
    """Reads without side effects."""

    def __init__(
        self,
        *,
        find: Callable[[str], Instance | None],
        features: Callable[[], Mapping[str, str]],
        initiator: str,
    ) -> None:
        """`features` as in HypervisorFacts; `initiator` is the name for iSCSI, empty: none."""
        self._find = find
        self._features = features
        self._initiator = initiator

    def get_volume_connector(
        self,
        request: pb.GetVolumeConnectorRequest,  # noqa: ARG002 - the same for all instances
    ) -> pb.GetVolumeConnectorResponse:
        """See VolumeFacts."""
        host = host_facts()
        return pb.GetVolumeConnectorResponse(
            connector=pb.VolumeConnector(
                ip=host.ip_address,
                hostname=host.hostname,
                initiator_iqn=self._initiator,
                nvme_host_nqn=_line("/etc/nvme/hostnqn"),
                nvme_host_id=_line("/etc/nvme/hostid"),
                world_wide_port_names=_fibre_channel("port_name"),
                world_wide_node_names=_fibre_channel("node_name"),
                system_id=_line("/sys/class/dmi/id/product_uuid").lower(),
                architecture=platform.machine(),
                os_type=platform.system().lower(),
            )
        )

    def assign_device_names(
        self, request: pb.AssignDeviceNamesRequest
    ) -> pb.AssignDeviceNamesResponse:
        """See VolumeFacts."""
        instance = self._find(request.instance_id) if request.instance_id else None
        return assigned(request, instance)

    def check_filesystem_support(
        self, request: pb.CheckFilesystemSupportRequest
    ) -> pb.CheckFilesystemSupportResponse:
        """See VolumeFacts."""
        supported = sorted(
            name.removeprefix(_FILESYSTEM)
            for name, missing in self._features().items()
            if name.startswith(_FILESYSTEM) and not missing
        )
        return pb.CheckFilesystemSupportResponse(
            supported=request.filesystem in supported, supported_filesystems=supported
        )


def assigned(
    request: pb.AssignDeviceNamesRequest, instance: Instance | None
) -> pb.AssignDeviceNamesResponse:
    """The names of disks; pure. Raises the errors of AssignDeviceNames."""
    existing = {} if instance is None else {d.device_name: d for d in _disks(instance)}
    names = DeviceNames(existing)
    root = _root_name(request, instance, names)
    claimed = [_asked(slot, root, existing, names, n) for n, slot in enumerate(request.disks)]
    response = pb.AssignDeviceNamesResponse(root_device_name=root)
    for number, (slot, name) in enumerate(zip(request.disks, claimed, strict=True)):
        filled = _filled(slot)
        filled.device_name = name or names.free(_prefix(filled), field=f"disks[{number}]")
        response.disks.append(filled)
    try:
        response.next_device_name = names.free(_prefix(_filled(request.next, ignore_name=True)))
    except ContractError:
        # Its bus has none left, which is what an empty name says.
        response.next_device_name = ""
    return response


def _root_name(
    request: pb.AssignDeviceNamesRequest, instance: Instance | None, names: DeviceNames
) -> str:
    if instance is not None and not request.HasField("root"):
        own = [d for d in instance.persistent.disks if d.role == "root"]
        own += [d for d in instance.persistent.disks if d.HasField("boot_index")]
        if own:
            return own[0].device_name
    root, name = _filled(request.root), plain_name(request.root.device_name)
    if name and instance is not None and any(d.device_name == name for d in _disks(instance)):
        return name
    if name:
        return names.claim(name, _prefix(root), field="root.device_name")
    taken_by_others = {plain_name(slot.device_name) for slot in request.disks}
    free = names.free(_prefix(root), field="root")
    while free in taken_by_others and not _is_root(request, free):
        free = names.free(_prefix(root), field="root")
    return free


def _is_root(request: pb.AssignDeviceNamesRequest, name: str) -> bool:
    """A disk of the request that has the name is the root disk itself."""
    return any(
        plain_name(slot.device_name) == name and slot.HasField("boot_index") and not slot.boot_index
        for slot in request.disks
    )


def _asked(
    slot: pb.DiskSlot, root: str, existing: Mapping[str, object], names: DeviceNames, number: int
) -> str:
    """The name of a disk that has one; empty: it is to be chosen."""
    name = plain_name(slot.device_name)
    if slot.HasField("boot_index") and slot.boot_index == 0:
        return root
    if not name or name in existing:
        return name
    return names.claim(name, _prefix(_filled(slot)), field=f"disks[{number}].device_name")


def _filled(slot: pb.DiskSlot, *, ignore_name: bool = False) -> pb.DiskSlot:
    """A disk with bus and device type chosen."""
    filled = pb.DiskSlot()
    filled.CopyFrom(slot)
    filled.device_type = slot.device_type or _DISK
    name = "" if ignore_name else slot.device_name
    filled.bus = chosen_bus(slot.bus, name, slot.device_type)
    return filled


def _prefix(slot: pb.DiskSlot) -> str:
    return name_prefix(DiskBus.ValueType(slot.bus), slot.device_type)


def _disks(instance: Instance) -> list[AttachedDisk]:
    return [*instance.persistent.disks, *instance.effective.disks]


def initiator_name(state_dir: Path) -> str:
    """The name of this host's QEMU for iSCSI targets: the system's, else one of its own.

    Source: iscsid's /etc/iscsi/initiatorname.iscsi.
    """
    line = _line("/etc/iscsi/initiatorname.iscsi")
    if line.startswith("InitiatorName="):
        return line.partition("=")[2].strip()
    machine_id = _line("/etc/machine-id") or str(state_dir.stat().st_ino)
    return f"iqn.2026-01.dev.virtrpc:{machine_id}"


def _line(path: str) -> str:
    """The last line of a small file that is no comment; empty where it cannot be read."""
    try:
        lines = Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.strip() for line in lines if line and not line.startswith("#")), "")


def _fibre_channel(name: str) -> list[str]:
    paths = sorted(Path("/sys/class/fc_host").glob(f"*/{name}"))
    return [_line(str(path)).removeprefix("0x") for path in paths]
