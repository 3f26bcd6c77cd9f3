"""A domain that somebody else made, as a specification and what it leaves unsaid. Pure."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from virtrpc.v1 import host_pb2 as pb
from virtrpc.v1 import spec_pb2
from virtrpc.v1.spec_pb2 import InstanceSpec

from backends.libvirt.adoption.disks import block_device, interface_spec
from backends.libvirt.adoption.leftovers import described, leftovers, path_of
from backends.libvirt.blueprint.devices import AGENT_CHANNEL
from backends.libvirt.xml.domain import Domain
from backends.libvirt.xml.element import Node

T = TypeVar("T")
_KIB_PER_MIB = 1024
_WATCHDOGS = {
    "reset": spec_pb2.WATCHDOG_ACTION_RESET,
    "poweroff": spec_pb2.WATCHDOG_ACTION_POWEROFF,
    "pause": spec_pb2.WATCHDOG_ACTION_PAUSE,
    "none": spec_pb2.WATCHDOG_ACTION_NONE,
}
_GRAPHICS = {"vnc": spec_pb2.GRAPHICS_TYPE_VNC, "spice": spec_pb2.GRAPHICS_TYPE_SPICE}


@dataclass(frozen=True)
class Found:
    """What a domain is, in the words of a specification."""

    spec: InstanceSpec
    unsaid: tuple[pb.ImportDifference, ...]
    """What is kept in the domain, and cannot be said."""


def read_domain(node: Node, *, image_dir: Path) -> Found:
    """The specification that a persistent domain comes nearest to.

    Kernels and ramdisks are images where they are files of `image_dir`.
    """
    domain = Domain.from_xml(node)
    reading = _Reading(node, domain, image_dir)
    spec = reading.spec()
    unsaid = (
        pb.ImportDifference(kind=pb.IMPORT_DIFFERENCE_KIND_NOT_EXPRESSIBLE, path=path, found=found)
        for path, found in (*reading.unsaid, *leftovers(node))
    )
    return Found(spec, tuple(unsaid))


class _Reading:
    """Goes through a domain once; collects what cannot be said."""

    def __init__(self, node: Node, domain: Domain, image_dir: Path) -> None:
        self.unsaid: list[tuple[str, str]] = []
        self._node = node
        self._domain = domain
        self._image_dir = image_dir
        self._id = domain.uuid or ""

    def spec(self) -> InstanceSpec:
        domain = self._domain
        spec = InstanceSpec(name=domain.name or "", machine=self._machine())
        spec.flavor.vcpus = domain.vcpus or 0
        spec.flavor.memory_mib = -(-(domain.memory or 0) // _KIB_PER_MIB)
        if (domain.memory or 0) % _KIB_PER_MIB:
            self.unsaid.append(("memory", f"{domain.memory} KiB"))
        spec.flavor.extra_specs.update(self._extra_specs())
        self._add_image(spec)
        spec.block_devices.extend(self._each("disk", block_device))
        spec.interfaces.extend(self._each("interface", interface_spec))
        self._mark_boot_disk(spec)
        for channel in self._node.iterfind("devices/channel"):
            name = _target_name(channel)
            if name != AGENT_CHANNEL:
                self.unsaid.append((path_of(channel), described(channel)))
        return spec

    def _machine(self) -> spec_pb2.MachineSpec:
        domain, devices = self._domain, self._node.find("devices")
        assert devices is not None  # noqa: S101 - libvirt gives every domain some
        machine = spec_pb2.MachineSpec(
            firmware=self._firmware(),
            machine_type=domain.machine or "",
            cpu_model=self._cpu_model(),
            vtpm=domain.tpm is not None and domain.tpm.type == "emulator",
            rng=domain.rng is not None,
            guest_agent_disabled=AGENT_CHANNEL not in map(_target_name, devices.iter("channel")),
        )
        kinds: Mapping[str, Mapping[str, int]] = {"watchdog": _WATCHDOGS, "graphics": _GRAPHICS}
        for name, words in kinds.items():
            attribute = "action" if name == "watchdog" else "type"
            for number, device in enumerate(devices.findall(name)):
                word = words.get(device.get(attribute, "reset"))
                if word is None or number:
                    self.unsaid.append((path_of(device), described(device)))
                else:
                    setattr(machine, name, word)
        tpm = devices.find("tpm")
        if tpm is not None and not machine.vtpm:
            self.unsaid.append((path_of(tpm), described(tpm)))
        return machine

    def _firmware(self) -> "spec_pb2.FirmwareType.ValueType":
        loader = self._node.find("os/loader")
        pflash = loader is not None and loader.get("type") == "pflash"
        if self._domain.firmware != "efi" and not pflash:
            return spec_pb2.FIRMWARE_TYPE_BIOS
        if self._domain.secure_loader:
            return spec_pb2.FIRMWARE_TYPE_UEFI_SECURE_BOOT
        return spec_pb2.FIRMWARE_TYPE_UEFI

    def _cpu_model(self) -> str:
        domain = self._domain
        return domain.cpu_model or "" if domain.cpu_mode in (None, "custom") else domain.cpu_mode

    def _extra_specs(self) -> Iterator[tuple[str, str]]:
        domain = self._domain
        if domain.sockets:
            yield "hw:cpu_sockets", str(domain.sockets)
            yield "hw:cpu_cores", str(domain.cores or 1)
            yield "hw:cpu_threads", str(domain.threads or 1)
        if domain.boot_menu:
            yield "hw:boot_menu", "true"
        if domain.pmu is not None:
            yield "hw:pmu", "true" if domain.pmu == "on" else "false"
        if domain.kvm_hidden == "on":
            yield "hw:hide_hypervisor_id", "true"
        if len(domain.serials) > 1:
            yield "hw:serial_port_count", str(len(domain.serials))

    def _add_image(self, spec: InstanceSpec) -> None:
        """Kernel, ramdisk and arguments: all of them are images, or none is said."""
        domain = self._domain
        files = {"kernel": domain.kernel, "initrd": domain.initrd}
        if any(path and Path(path).parent != self._image_dir for path in files.values()):
            files |= {"cmdline": domain.kernel_args}
            self.unsaid += [(f"os/{name}", found) for name, found in files.items() if found]
        elif domain.kernel:
            spec.image.kernel_image_id = Path(domain.kernel).name
            spec.image.ramdisk_image_id = Path(domain.initrd or "").name
            spec.image.kernel_args = domain.kernel_args or ""

    def _each(self, name: str, read: Callable[[str, Node], T | None]) -> Iterator[T]:
        for node in self._node.iterfind(f"devices/{name}"):
            found = read(self._id, node)
            if found is None:
                self.unsaid.append((path_of(node), described(node)))
            else:
                yield found

    def _mark_boot_disk(self, spec: InstanceSpec) -> None:
        """What <boot dev='hd'/> means: the first hard disk, where no kernel is given."""
        if self._domain.kernel:
            return
        asked = [boot.get("dev") for boot in self._node.iterfind("os/boot")]
        if "hd" not in asked or any(device.HasField("boot_index") for device in spec.block_devices):
            return
        for device in spec.block_devices:
            if device.device_type == spec_pb2.DISK_DEVICE_TYPE_DISK:
                device.boot_index = 0
                return


def _target_name(channel: Node) -> str:
    target = channel.find("target")
    return "" if target is None else target.get("name", "")
