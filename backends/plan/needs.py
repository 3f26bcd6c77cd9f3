"""What an instance needs of its host, by the names under which GetCapabilities has them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from virtrpc.v1 import spec_pb2
from virtrpc.v1.spec_pb2 import InstanceSpec, InterfaceSpec

from backends.errors import ContractError, UnsupportedError
from backends.plan.cpus import CpuLayout
from backends.plan.extra_specs import ExtraSpecs, extra_spec_field
from backends.plan.interfaces import kind_of
from backends.plan.machine import Machine

_NOT_YET = "this backend does not do it yet"
_FIRMWARE: Mapping[int, str] = {
    spec_pb2.FIRMWARE_TYPE_UEFI: "uefi",
    spec_pb2.FIRMWARE_TYPE_UEFI_SECURE_BOOT: "secure_boot",
}
CONFIG_DRIVES: Mapping[int, str] = {
    spec_pb2.CONFIG_DRIVE_TYPE_OPENSTACK: "config_drive_openstack",
    spec_pb2.CONFIG_DRIVE_TYPE_NOCLOUD: "config_drive_nocloud",
}


class Need(NamedTuple):
    """A feature of the host, and the request field that asks for it."""

    feature: str
    field: str


def unmet(wanted: Sequence[Need], features: Mapping[str, str]) -> list[ContractError]:
    """Needs that a host does not meet; its features are given with why they are missing ("")."""
    return [
        UnsupportedError(need.feature, why=why, field=need.field)
        for need in wanted
        if (why := features.get(need.feature, _NOT_YET))
    ]


def machine_needs(spec: InstanceSpec, machine: Machine) -> Iterator[Need]:
    """What the machine needs, each at the field that asked for it."""

    def asked(feature: str, field: str, key: str, *, by_spec: object) -> Need:
        return Need(feature, f"spec.machine.{field}" if by_spec else extra_spec_field(key))

    own = spec.machine
    if machine.firmware in _FIRMWARE:
        feature = _FIRMWARE[machine.firmware]
        yield asked(feature, "firmware", "os:secure_boot", by_spec=own.firmware)
    if machine.tpm is not None:
        yield asked("vtpm", "vtpm", "hw:tpm_version", by_spec=own.vtpm)
    if machine.rng is not None:
        yield asked("rng", "rng", "hw_rng:allowed", by_spec=own.rng)
    if machine.watchdog_action is not None:
        yield asked("watchdog", "watchdog", "hw:watchdog_action", by_spec=own.watchdog)
    if machine.graphics is not None:
        yield Need(machine.graphics, "spec.machine.graphics")
    if machine.guest_agent:
        yield Need("guest_agent", "spec.machine.guest_agent_disabled")
    if machine.hypervisor_hidden:
        yield Need("kvm", extra_spec_field("hw:hide_hypervisor_id"))


def placement_needs(extra: ExtraSpecs, cpus: CpuLayout) -> Iterator[Need]:
    """What the layout of CPUs and memory needs."""
    if cpus.pinned:
        yield Need("cpu_pinning", extra_spec_field("hw:cpu_policy"))
    if extra.numa_nodes is not None:
        yield Need("numa", extra_spec_field("hw:numa_nodes"))
    if cpus.page_size == "large":
        yield Need("hugepages", extra_spec_field("hw:mem_page_size"))


def device_needs(spec: InstanceSpec, config_drive: int) -> Iterator[Need]:
    """What disks, config drive and interfaces need."""
    if config_drive in CONFIG_DRIVES:
        yield Need(CONFIG_DRIVES[config_drive], "spec.guest")
    for index, device in enumerate(spec.block_devices):
        field = f"spec.block_devices[{index}]"
        if device.HasField("volume"):
            yield Need(f"volume_{device.volume.WhichOneof('source')}", f"{field}.volume")
            if device.HasField("boot_index"):
                yield Need("boot_from_volume", f"{field}.boot_index")
        elif device.ephemeral.filesystem:
            filesystem = device.ephemeral.filesystem
            yield Need(f"filesystem_{filesystem}", f"{field}.ephemeral.filesystem")
    if spec.flavor.swap_mib:
        yield Need("filesystem_swap", "spec.flavor.swap_mib")
    for index, interface in enumerate(spec.interfaces):
        yield from interface_needs(interface, f"spec.interfaces[{index}]")


def interface_needs(interface: InterfaceSpec, field: str) -> Iterator[Need]:
    """What an interface needs; `field` is its path."""
    yield Need(f"interface_{interface.WhichOneof('network')}", field)
    kind = kind_of(interface)
    if interface.HasField("qos") and kind.qos:
        yield Need("interface_qos", f"{field}.qos")
    if kind.filtered and interface.security_group_ids:
        yield Need("security_groups", f"{field}.security_group_ids")
    elif kind.filtered and not interface.port_security_disabled:
        yield Need("anti_spoofing", f"{field}.port_security_disabled")
