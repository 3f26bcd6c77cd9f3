"""From a specification to a domain: a pure function, and what of it is not done here yet."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from virtrpc.v1 import spec_pb2
from virtrpc.v1.spec_pb2 import InstanceSpec, InterfaceSpec

from backends.errors import ContractError, InvalidArgumentError, UnsupportedError
from backends.images import StoredImage
from backends.libvirt.instances import ALIAS_PREFIX
from backends.libvirt.xml import metadata
from backends.libvirt.xml.domain import (
    Balloon,
    Channel,
    Disk,
    Domain,
    Interface,
    Rng,
    Serial,
    Video,
)
from backends.libvirt.xml.element import is_writable, to_text
from backends.specification import instance_name

_STATS_PERIOD_S = 10
AGENT_CHANNEL = "org.qemu.guest_agent.0"
_SUPPORTED_FIRMWARE = (spec_pb2.FIRMWARE_TYPE_UNSPECIFIED, spec_pb2.FIRMWARE_TYPE_BIOS)
_SUPPORTED_GRAPHICS = (spec_pb2.GRAPHICS_TYPE_UNSPECIFIED, spec_pb2.GRAPHICS_TYPE_NONE)


@dataclass(frozen=True, kw_only=True)
class Place:
    """What of the host goes into a domain."""

    virt_type: str
    """Domain type: "kvm", "qemu" or "test"."""
    emulator: str | None
    """Path of QEMU; None: libvirt's choice."""
    root_disk: Path | None
    kernel: StoredImage | None
    ramdisk: StoredImage | None
    console_log: Path


def domain_xml(instance_id: str, own: metadata.InstanceMetadata, place: Place) -> str:
    """The domain of an instance as libvirt defines it."""
    node = _domain(instance_id, own.spec, place).to_xml()
    metadata.add_to(node, own)
    return to_text(node)


def unsupported(spec: InstanceSpec) -> Sequence[ContractError]:
    """Parts of a specification that this backend does not carry out: all of them."""
    asked = {
        "disk_hotplug": bool(spec.block_devices) and "spec.block_devices",
        "ephemeral_disk": spec.flavor.ephemeral_disk_gib and "spec.flavor.ephemeral_disk_gib",
        "swap_disk": spec.flavor.swap_mib and "spec.flavor.swap_mib",
        "uefi": spec.machine.firmware not in _SUPPORTED_FIRMWARE and "spec.machine.firmware",
        "vtpm": spec.machine.vtpm and "spec.machine.vtpm",
        "watchdog": spec.machine.watchdog and "spec.machine.watchdog",
        "vnc": spec.machine.graphics not in _SUPPORTED_GRAPHICS and "spec.machine.graphics",
        "config_drive_openstack": spec.HasField("guest") and "spec.guest",
    }
    errors: list[ContractError] = [
        UnsupportedError(capability, why="this backend does not do it yet", field=str(field))
        for capability, field in asked.items()
        if field
    ]
    errors.extend(_unsupported_extra_specs(spec))
    errors.extend(_unsupported_interfaces(spec))
    errors.extend(_unsupported_on_user_network(spec))
    errors.extend(unwritable({"spec.image.kernel_args": spec.image.kernel_args}))
    errors.extend(unwritable({f'spec.metadata["{k}"]': k + v for k, v in spec.metadata.items()}))
    return errors


def unwritable(texts: Mapping[str, str]) -> list[ContractError]:
    """Texts, by the paths of their fields, that a domain cannot hold."""
    return [
        InvalidArgumentError("U+FFFE and U+FFFF are not characters", field=field)
        for field, text in texts.items()
        if not is_writable(text)
    ]


def _unsupported_extra_specs(spec: InstanceSpec) -> list[ContractError]:
    return [
        UnsupportedError(
            "extra_specs",
            why=f"{key} is not carried out",
            field=f'spec.flavor.extra_specs["{key}"]',
        )
        for key in spec.flavor.extra_specs
        if key.startswith(("hw:", "os:"))
    ]


def _unsupported_interfaces(spec: InstanceSpec) -> list[ContractError]:
    return [
        UnsupportedError(
            f"interface_{interface.WhichOneof('network')}",
            why="this backend does not do it yet",
            field=f"spec.interfaces[{index}]",
        )
        for index, interface in enumerate(spec.interfaces)
        if interface.WhichOneof("network") != "user"
    ]


def _unsupported_on_user_network(spec: InstanceSpec) -> list[ContractError]:
    return [
        UnsupportedError(
            capability, why="QEMU's own NAT has none", field=f"spec.interfaces[{index}].{field}"
        )
        for index, interface in enumerate(spec.interfaces)
        if interface.HasField("user")
        for field, capability, asked in (
            ("mtu", "interface_mtu", interface.mtu),
            ("queues", "interface_queues", interface.queues > 1),
            ("qos", "interface_qos", interface.HasField("qos")),
            ("security_group_ids", "security_groups", interface.security_group_ids),
        )
        if asked
    ]


def _domain(instance_id: str, spec: InstanceSpec, place: Place) -> Domain:
    kib = spec.flavor.memory_mib * 1024
    kernel, ramdisk = place.kernel, place.ramdisk
    return Domain(
        type=place.virt_type,
        name=instance_name(instance_id, spec),
        uuid=instance_id,
        memory_unit="KiB",
        memory=kib,
        current_memory_unit="KiB",
        current_memory=kib,
        vcpus=spec.flavor.vcpus,
        cpu_mode=_cpu_mode(spec, place),
        cpu_model=_cpu_model(spec),
        arch="x86_64" if place.virt_type != "test" else None,
        machine=spec.machine.machine_type or ("q35" if place.virt_type != "test" else None),
        os_type="hvm",
        kernel=str(kernel.path) if kernel else None,
        initrd=str(ramdisk.path) if ramdisk else None,
        kernel_args=spec.image.kernel_args or None,
        acpi=True,
        apic=True,
        clock="utc",
        on_poweroff="destroy",
        on_reboot="restart",
        on_crash="destroy",
        emulator=place.emulator,
        disks=[_root_disk(place.root_disk)] if place.root_disk else [],
        interfaces=[_interface(interface) for interface in spec.interfaces],
        serials=[Serial(type="pty", log_file=str(place.console_log), log_append="on", port=0)],
        channels=[] if spec.machine.guest_agent_disabled else [_agent_channel()],
        video=Video(model="none"),
        balloon=Balloon(model="virtio", stats_period_s=_STATS_PERIOD_S),
        rng=Rng(model="virtio", backend_model="random", backend="/dev/urandom")
        if spec.machine.rng
        else None,
    )


def _cpu_mode(spec: InstanceSpec, place: Place) -> str | None:
    if spec.machine.cpu_model in ("host-passthrough", "host-model", "maximum"):
        return spec.machine.cpu_model
    if spec.machine.cpu_model:
        return "custom"
    return "host-model" if place.virt_type == "kvm" else None


def _cpu_model(spec: InstanceSpec) -> str | None:
    named = ("", "host-passthrough", "host-model", "maximum")
    return None if spec.machine.cpu_model in named else spec.machine.cpu_model


def _root_disk(path: Path) -> Disk:
    return Disk(
        type="file",
        device="disk",
        driver_name="qemu",
        format="qcow2",
        discard="unmap",
        source_file=str(path),
        target="vda",
        bus="virtio",
        boot_order=1,
        alias=f"{ALIAS_PREFIX}root",
    )


def _interface(spec: InterfaceSpec) -> Interface:
    return Interface(
        type="user",
        mac=spec.mac_address or None,
        model=spec.model or "virtio",
        mtu=spec.mtu or None,
        link="down" if spec.link_down else None,
        alias=f"{ALIAS_PREFIX}{spec.port_id}",
    )


def _agent_channel() -> Channel:
    return Channel(type="unix", target_type="virtio", target_name=AGENT_CHANNEL)
