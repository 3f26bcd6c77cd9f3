"""The elements of a domain that the service writes or reads.

Source: libvirt's "Domain XML format"; every field is held against libvirt's own
schema in the tests.
"""

from dataclasses import dataclass

from backends.libvirt.xml.element import Element, flag, many, number, one, text, yes_no
from backends.libvirt.xml.interface import Interface
from backends.libvirt.xml.placement import FirmwareFeature, MemoryNode, NumaCell, VcpuPin


@dataclass
class Disk(Element):
    """A disk, CD-ROM or floppy disk."""

    tag = "disk"
    type: str | None = text("@type")
    device: str | None = text("@device")
    driver_name: str | None = text("driver/@name")
    format: str | None = text("driver/@type")
    cache: str | None = text("driver/@cache")
    discard: str | None = text("driver/@discard")
    source_file: str | None = text("source/@file")
    source_device: str | None = text("source/@dev")
    target: str | None = text("target/@dev")
    bus: str | None = text("target/@bus")
    read_only: bool = flag("readonly")
    serial: str | None = text("serial")
    boot_order: int | None = number("boot/@order")
    alias: str | None = text("alias/@name")


@dataclass
class Serial(Element):
    """A serial port whose output QEMU itself appends to a file."""

    tag = "serial"
    type: str | None = text("@type")
    source_path: str | None = text("source/@path")
    log_file: str | None = text("log/@file")
    log_append: str | None = text("log/@append")
    port: int | None = number("target/@port")


@dataclass
class Channel(Element):
    """A virtio channel between host and guest."""

    tag = "channel"
    type: str | None = text("@type")
    target_type: str | None = text("target/@type")
    target_name: str | None = text("target/@name")
    target_state: str | None = text("target/@state")


@dataclass
class Rng(Element):
    """A random number generator fed from the host."""

    tag = "rng"
    model: str | None = text("@model")
    backend_model: str | None = text("backend/@model")
    backend: str | None = text("backend")
    rate_bytes: int | None = number("rate/@bytes")
    rate_period_ms: int | None = number("rate/@period")


@dataclass
class Watchdog(Element):
    """A watchdog and what it does to a guest that does not feed it."""

    tag = "watchdog"
    model: str | None = text("@model")
    action: str | None = text("@action")


@dataclass
class Tpm(Element):
    """A TPM; type "emulator" is swtpm, whose state libvirt keeps and removes."""

    tag = "tpm"
    model: str | None = text("@model")
    type: str | None = text("backend/@type")
    version: str | None = text("backend/@version")


@dataclass
class Graphics(Element):
    """A graphical console; listening on a "socket" it has no address."""

    tag = "graphics"
    type: str | None = text("@type")
    listen: str | None = text("listen/@type")
    socket: str | None = text("listen/@socket")


@dataclass
class Input(Element):
    """A pointer or keyboard."""

    tag = "input"
    type: str | None = text("@type")
    bus: str | None = text("@bus")


@dataclass
class Controller(Element):
    """A controller of a bus."""

    tag = "controller"
    type: str | None = text("@type")
    index: int | None = number("@index")
    model: str | None = text("@model")


@dataclass
class Balloon(Element):
    """The memory balloon."""

    tag = "memballoon"
    model: str | None = text("@model")
    stats_period_s: int | None = number("stats/@period")


@dataclass
class Video(Element):
    """A video device; model "none" keeps libvirt from adding one."""

    tag = "video"
    model: str | None = text("model/@type")


@dataclass
class Domain(Element):
    """A domain."""

    tag = "domain"
    type: str | None = text("@type")
    name: str | None = text("name")
    uuid: str | None = text("uuid")
    memory_unit: str | None = text("memory/@unit")
    memory: int | None = number("memory")
    current_memory_unit: str | None = text("currentMemory/@unit")
    current_memory: int | None = number("currentMemory")
    page_size: int | None = number("memoryBacking/hugepages/page/@size")
    page_unit: str | None = text("memoryBacking/hugepages/page/@unit")
    vcpus: int | None = number("vcpu")
    vcpu_placement: str | None = text("vcpu/@placement")
    vcpu_cpus: str | None = text("vcpu/@cpuset")
    vcpu_pins: list[VcpuPin] = many("cputune/vcpupin", VcpuPin)
    emulator_cpus: str | None = text("cputune/emulatorpin/@cpuset")
    memory_mode: str | None = text("numatune/memory/@mode")
    memory_cells: str | None = text("numatune/memory/@nodeset")
    memory_source: str | None = text("memoryBacking/source/@type")
    memory_access: str | None = text("memoryBacking/access/@mode")
    memory_nodes: list[MemoryNode] = many("numatune/memnode", MemoryNode)
    cpu_mode: str | None = text("cpu/@mode")
    cpu_model: str | None = text("cpu/model")
    sockets: int | None = number("cpu/topology/@sockets")
    cores: int | None = number("cpu/topology/@cores")
    threads: int | None = number("cpu/topology/@threads")
    numa_cells: list[NumaCell] = many("cpu/numa/cell", NumaCell)
    arch: str | None = text("os/type/@arch")
    machine: str | None = text("os/type/@machine")
    os_type: str | None = text("os/type")
    firmware: str | None = text("os/@firmware")
    firmware_features: list[FirmwareFeature] = many("os/firmware/feature", FirmwareFeature)
    secure_loader: bool | None = yes_no("os/loader/@secure")
    nvram: str | None = text("os/nvram")
    kernel: str | None = text("os/kernel")
    initrd: str | None = text("os/initrd")
    kernel_args: str | None = text("os/cmdline")
    boot_serial: bool | None = yes_no("os/bios/@useserial")
    boot_menu: bool | None = yes_no("os/bootmenu/@enable")
    acpi: bool = flag("features/acpi")
    apic: bool = flag("features/apic")
    smm: str | None = text("features/smm/@state")
    pmu: str | None = text("features/pmu/@state")
    kvm_hidden: str | None = text("features/kvm/hidden/@state")
    clock: str | None = text("clock/@offset")
    on_poweroff: str | None = text("on_poweroff")
    on_reboot: str | None = text("on_reboot")
    on_crash: str | None = text("on_crash")
    emulator: str | None = text("devices/emulator")
    disks: list[Disk] = many("devices/disk", Disk)
    interfaces: list[Interface] = many("devices/interface", Interface)
    serials: list[Serial] = many("devices/serial", Serial)
    channels: list[Channel] = many("devices/channel", Channel)
    controllers: list[Controller] = many("devices/controller", Controller)
    tpm: Tpm | None = one("devices/tpm", Tpm)
    inputs: list[Input] = many("devices/input", Input)
    graphics: list[Graphics] = many("devices/graphics", Graphics)
    watchdogs: list[Watchdog] = many("devices/watchdog", Watchdog)
    video: Video | None = one("devices/video", Video)
    balloon: Balloon | None = one("devices/memballoon", Balloon)
    rng: Rng | None = one("devices/rng", Rng)
