"""Machines of the fake: what an instance looks like when it is made."""

from collections.abc import Mapping
from pathlib import Path

from virtrpc.v1 import spec_pb2
from virtrpc.v1.instance_pb2 import (
    AttachedDisk,
    AttachedInterface,
    Instance,
    MachineCell,
    MachineState,
)
from virtrpc.v1.spec_pb2 import InterfaceSpec
from virtrpc.v1.types_pb2 import PowerState

from backends.fake.resources import CELLS
from backends.plan import InstancePlan
from backends.plan.disks import PlannedDisk
from backends.plan.interfaces import DEFAULT_MODEL, host_device, mac_address
from backends.redaction import redacted
from backends.specification import instance_name
from backends.volumes.attached import attached

MACHINE_TYPE = "fake-q35"
CONFIG_DRIVE = "config.iso"
# As libvirt calls them, where it has a word of its own.
_TYPES: Mapping[str, str] = {
    "libvirt_network": "network",
    "open_vswitch": "bridge",
    "macvtap": "direct",
    "tap": "ethernet",
    "vhost_user": "vhostuser",
    "host_device": "hostdev",
}


def new_instance(plan: InstancePlan, folder: Path) -> Instance:
    """An instance as it is made from a plan: known, and off."""
    spec, machine = plan.spec, _machine(plan, folder)
    instance = Instance(
        instance_id=plan.instance_id,
        name=instance_name(plan.instance_id, spec),
        power_state=PowerState.POWER_STATE_SHUTDOWN,
        max_memory_kib=machine.max_memory_kib,
        memory_kib=machine.memory_kib,
        vcpus=spec.flavor.vcpus,
        labels=spec.labels,
        metadata=spec.metadata,
        bootable=True,
        managed=True,
        spec=redacted(spec),
        persistent=machine,
        virt_type="fake",
    )
    instance.created_at.GetCurrentTime()
    return instance


def machines(instance: Instance) -> list[MachineState]:
    """The machine that starts next, and the one that runs, where there is one."""
    running = [instance.effective] if instance.HasField("effective") else []
    return [instance.persistent, *running]


def _machine(plan: InstancePlan, folder: Path) -> MachineState:
    spec = plan.spec
    kib = spec.flavor.memory_mib * 1024
    return MachineState(
        max_memory_kib=kib,
        memory_kib=kib,
        vcpus=spec.flavor.vcpus,
        machine_type=plan.machine.machine_type or MACHINE_TYPE,
        disks=[_disk(disk, folder) for disk in plan.disks],
        interfaces=[attached_interface(plan.instance_id, one) for one in spec.interfaces],
        host_cells=[
            MachineCell(
                cell_id=cell.cell_id % CELLS,
                vcpus=len(cell.cpus),
                memory_kib=cell.memory_mib * 1024,
            )
            for cell in plan.cpus.cells
        ],
    )


def attached_interface(instance_id: str, interface: InterfaceSpec) -> AttachedInterface:
    """An interface as a machine has it."""
    network = interface.WhichOneof("network") or ""
    return AttachedInterface(
        port_id=interface.port_id,
        mac_address=mac_address(instance_id, interface),
        model=interface.model or DEFAULT_MODEL,
        type=_TYPES.get(network, network),
        source=_source(interface),
        host_device=host_device(interface),
        mtu=interface.mtu,
        link_down=interface.link_down,
    )


def _source(interface: InterfaceSpec) -> str:
    return (
        interface.bridge.bridge
        or interface.libvirt_network.network
        or interface.open_vswitch.bridge
        or interface.macvtap.device
        or interface.vhost_user.socket_path
    )


def _disk(disk: PlannedDisk, folder: Path) -> AttachedDisk:
    """Of the instance's own disks only the config drive has bytes."""
    if disk.volume is not None:
        return attached(disk)
    config = disk.role == "config"
    made = AttachedDisk(
        device_name=disk.device_name,
        role=disk.role,
        bus=disk.bus,
        format=spec_pb2.DISK_FORMAT_QCOW2 if disk.role == "root" else spec_pb2.DISK_FORMAT_RAW,
        device_type=spec_pb2.DISK_DEVICE_TYPE_DISK,
        read_only=config,
        serial=disk.serial,
        source=str(folder / CONFIG_DRIVE) if config else "",
    )
    if disk.boot_index is not None:
        made.boot_index = disk.boot_index
    return made
