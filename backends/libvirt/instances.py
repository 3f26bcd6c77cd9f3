"""Reads an Instance from a domain: its state, and its XML as it runs and as it will start."""

from collections.abc import Mapping
from pathlib import Path

import libvirt
import structlog
from virtrpc.v1.instance_pb2 import AttachedInterface, Instance, MachineState
from virtrpc.v1.types_pb2 import PowerState

from backends.libvirt.attached_disks import ALIAS_PREFIX, name_volumes, read_disk
from backends.libvirt.freezes import thaw_time
from backends.libvirt.placed import read_host_cells, read_own_cpus
from backends.libvirt.starts import started_at_ns
from backends.libvirt.xml import metadata
from backends.libvirt.xml.domain import Domain
from backends.libvirt.xml.element import Node, parse
from backends.libvirt.xml.interface import Interface, PciAddress
from backends.libvirt.xml.shares import shares_of
from backends.power_states import POST_COPY_BROKEN

POWER_STATES: Mapping[int, "PowerState.ValueType"] = {
    libvirt.VIR_DOMAIN_NOSTATE: PowerState.POWER_STATE_NOSTATE,
    libvirt.VIR_DOMAIN_RUNNING: PowerState.POWER_STATE_RUNNING,
    libvirt.VIR_DOMAIN_BLOCKED: PowerState.POWER_STATE_RUNNING,
    libvirt.VIR_DOMAIN_PAUSED: PowerState.POWER_STATE_PAUSED,
    libvirt.VIR_DOMAIN_SHUTDOWN: PowerState.POWER_STATE_RUNNING,
    libvirt.VIR_DOMAIN_SHUTOFF: PowerState.POWER_STATE_SHUTDOWN,
    libvirt.VIR_DOMAIN_CRASHED: PowerState.POWER_STATE_CRASHED,
    libvirt.VIR_DOMAIN_PMSUSPENDED: PowerState.POWER_STATE_PAUSED,
}
_REASONS: Mapping[tuple[int, int], str] = {
    (libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_RUNNING_BOOTED): "booted",
    (libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_RUNNING_MIGRATED): "migrated",
    (libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_RUNNING_RESTORED): "restored",
    (libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_RUNNING_UNPAUSED): "unpaused",
    (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_USER): "user",
    (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_MIGRATION): "migration",
    (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_POSTCOPY): "post-copy",
    (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_POSTCOPY_FAILED): POST_COPY_BROKEN,
    (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_IOERROR): "io-error",
    (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_WATCHDOG): "watchdog",
    (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_CRASHED): "crashed",
    (libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_SHUTDOWN): "shutdown",
    (libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_DESTROYED): "destroyed",
    (libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_CRASHED): "crashed",
    (libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_MIGRATED): "migrated",
    (libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_SAVED): "saved",
    (libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_FAILED): "failed",
    (libvirt.VIR_DOMAIN_CRASHED, libvirt.VIR_DOMAIN_CRASHED_PANICKED): "panicked",
}
# A machine that ended by itself, not by anyone's will.
_CRASHED = frozenset(
    {
        (libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_CRASHED),
        (libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_FAILED),
    }
)
log = structlog.get_logger()


def read_instance(domain: libvirt.virDomain, *, pid_folder: Path | None = None) -> Instance:
    """The facts of a domain; raises libvirt.libvirtError.

    `pid_folder` is that of backends.libvirt.starts.
    """
    state, reason = domain.state()
    active = state != libvirt.VIR_DOMAIN_SHUTOFF
    persistent = parse(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))
    own = _find_own(domain, persistent)
    machine = read_machine(Domain.from_xml(persistent))
    instance = Instance(
        instance_id=domain.UUIDString(),
        name=domain.name(),
        power_state=POWER_STATES.get(state, PowerState.POWER_STATE_NOSTATE),
        power_state_reason=_REASONS.get((state, reason), ""),
        max_memory_kib=machine.max_memory_kib,
        memory_kib=machine.memory_kib,
        vcpus=machine.vcpus,
        bootable=True,
        managed=own is not None,
        virt_type=persistent.get("type", ""),
        persistent=machine,
    )
    if (state, reason) in _CRASHED:
        instance.power_state = PowerState.POWER_STATE_CRASHED
    if not active and domain.hasManagedSaveImage():
        instance.power_state = PowerState.POWER_STATE_SUSPENDED
    if active:
        running = parse(domain.XMLDesc(0))
        instance.effective.CopyFrom(read_machine(Domain.from_xml(running)))
        name_volumes(instance.effective.disks, instance.persistent.disks)
        thaw_at = thaw_time(running)
        if thaw_at is not None:
            instance.thaw_at.CopyFrom(thaw_at)
        started_ns = started_at_ns(pid_folder, instance.name)
        if started_ns is not None:
            instance.started_at.FromNanoseconds(started_ns)
    instance.shares.extend(shares_of(persistent))
    if own is not None:
        add_own(instance, own)
    return instance


def add_live_counters(instance: Instance, domain: libvirt.virDomain) -> None:
    """CPU time and memory of this moment, by one call."""
    _, maximum, memory, vcpus, cpu_time_ns = domain.info()
    instance.max_memory_kib, instance.memory_kib = maximum, memory
    instance.vcpus, instance.cpu_time_ns = vcpus, cpu_time_ns
    instance.cpu_time_at.GetCurrentTime()


def _find_own(domain: libvirt.virDomain, node: Node) -> metadata.InstanceMetadata | None:
    """None also where they cannot be read: what nobody understands nobody may change."""
    try:
        return metadata.find_in(node)
    except metadata.DamagedMetadataError as error:
        log.warning(
            "instance counts as unmanaged: its metadata cannot be read",
            instance_id=domain.UUIDString(),
            reason=str(error),
        )
        return None


def add_own(instance: Instance, own: metadata.InstanceMetadata) -> None:
    """Puts what the service itself keeps of an instance into its facts."""
    instance.spec.CopyFrom(own.spec)
    _name_interfaces(instance)
    instance.labels.update(own.spec.labels)
    instance.metadata.update(own.metadata)
    if own.created_at.seconds:
        instance.created_at.CopyFrom(own.created_at)
    instance.bootable = own.bootable
    instance.pending_migration_id = own.pending_migration
    if own.reclaim_at is not None:
        instance.reclaim_at.CopyFrom(own.reclaim_at)
    if own.rescue is not None:
        instance.rescued, instance.rescue_image_id = True, own.rescue.image_id
        instance.rescued_at.CopyFrom(own.rescue.since)


def _name_interfaces(instance: Instance) -> None:
    """Those of an adopted machine have no port in their names: the specification knows it."""
    known = (interface for interface in instance.spec.interfaces if interface.mac_address)
    ports = {interface.mac_address: interface.port_id for interface in known}
    for machine in (instance.persistent, instance.effective):
        for interface in machine.interfaces:
            if not interface.port_id:
                interface.port_id = ports.get(interface.mac_address, "")


def read_machine(domain: Domain) -> MachineState:
    """One configuration of a machine."""
    return MachineState(
        max_memory_kib=domain.memory or 0,
        memory_kib=domain.current_memory or domain.memory or 0,
        vcpus=domain.vcpus or 0,
        machine_type=domain.machine or "",
        disks=[read_disk(disk) for disk in domain.disks],
        interfaces=[_read_interface(interface) for interface in domain.interfaces],
        host_cells=read_host_cells(domain),
        dedicated_cpus=sorted(read_own_cpus(domain)),
    )


def _read_interface(interface: Interface) -> AttachedInterface:
    alias = interface.alias or ""
    address = interface.source_address
    return AttachedInterface(
        port_id=alias.removeprefix(ALIAS_PREFIX) if alias.startswith(ALIAS_PREFIX) else "",
        mac_address=interface.mac or "",
        model=interface.model or "",
        type=interface.type or "",
        source=interface.source_bridge
        or interface.source_network
        or interface.source_device
        or interface.source_path
        or "",
        host_device=interface.target or ("" if address is None else pci_address(address)),
        mtu=interface.mtu or 0,
        link_down=interface.link == "down",
    )


def pci_address(address: PciAddress) -> str:
    """As "0000:03:10.2"."""
    parts = (address.domain, address.bus, address.slot, address.function)
    domain, bus, slot, function = (int(part or "0", 16) for part in parts)
    return f"{domain:04x}:{bus:02x}:{slot:02x}.{function:x}"
