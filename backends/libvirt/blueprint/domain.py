"""The domain as a whole."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from backends.images import StoredImage
from backends.libvirt.blueprint.cpus import add_cpus
from backends.libvirt.blueprint.devices import add_devices
from backends.libvirt.blueprint.disks import add_disks
from backends.libvirt.blueprint.firmware import add_firmware
from backends.libvirt.blueprint.interfaces import add_interfaces
from backends.libvirt.blueprint.slots import add_spare_slots
from backends.libvirt.blueprint.volumes import LocatedVolume
from backends.libvirt.placement import Placement
from backends.libvirt.xml import metadata
from backends.libvirt.xml.domain import Domain
from backends.libvirt.xml.element import to_text
from backends.plan import InstancePlan
from backends.specification import instance_name


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
    placement: Placement = field(default_factory=Placement)
    volumes: Mapping[str, LocatedVolume] = field(default_factory=dict)
    """By attachment."""
    initiator: str = ""
    """Name of the host's QEMU for iSCSI targets."""
    machine_type: str = ""
    """What the guest has been running on; empty: the specification's, or the newest."""

    @property
    def folder(self) -> Path:
        """The instance's own: its log, disks, config drive and firmware variables."""
        return self.console_log.parent


def domain_xml(instance_id: str, own: metadata.InstanceMetadata, place: Place) -> str:
    """The domain of an instance as libvirt defines it; secrets play no part in it."""
    plan = InstancePlan(instance_id, own.spec)
    domain = _bare_domain(plan, place)
    add_cpus(domain, plan, place.placement, virt_type=place.virt_type)
    add_firmware(domain, plan.machine, nvram=place.folder / "nvram.fd")
    add_disks(
        domain,
        plan,
        folder=place.folder,
        root_disk=place.root_disk,
        volumes=place.volumes,
        initiator=place.initiator,
    )
    add_devices(domain, plan.machine, console_log=place.console_log)
    add_interfaces(domain, plan)
    add_spare_slots(domain)
    node = domain.to_xml()
    metadata.put_into(node, own)
    return to_text(node)


def _bare_domain(plan: InstancePlan, place: Place) -> Domain:
    """Identity, memory, what it boots, and what becomes of it when it ends."""
    kib = plan.spec.flavor.memory_mib * 1024
    kernel, ramdisk = place.kernel, place.ramdisk
    real = place.virt_type != "test"
    return Domain(
        type=place.virt_type,
        name=instance_name(plan.instance_id, plan.spec),
        uuid=plan.instance_id,
        memory_unit="KiB",
        memory=kib,
        current_memory_unit="KiB",
        current_memory=kib,
        arch="x86_64" if real else None,
        machine=place.machine_type or plan.machine.machine_type or ("q35" if real else None),
        os_type="hvm",
        kernel=str(kernel.path) if kernel else None,
        initrd=str(ramdisk.path) if ramdisk else None,
        kernel_args=plan.spec.image.kernel_args or None,
        boot_menu=plan.machine.boot_menu or None,
        acpi=True,
        apic=True,
        clock="utc",
        on_poweroff="destroy",
        on_reboot="restart",
        on_crash="destroy",
        emulator=place.emulator,
    )
