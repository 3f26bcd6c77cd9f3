"""What of a domain no specification can say, by the names of its elements.

The tables name what is said, implied by the kind of machine, or without meaning for
the guest; everything else is a leftover. So what libvirt adds later is never passed
over in silence. Values are told for a few harmless attributes only: elsewhere may be secrets.
"""

from collections.abc import Iterator, Mapping

from backends.libvirt.xml.element import Node

_SAID: Mapping[str, frozenset[str]] = {
    "": frozenset(
        (
            *("name", "uuid", "memory", "currentMemory", "vcpu", "os", "features", "cpu", "clock"),
            *("on_poweroff", "on_reboot", "on_crash", "pm", "devices", "metadata", "resource"),
            "seclabel",  # libvirt makes one for every domain
        )
    ),
    "os": frozenset(("type", "loader", "nvram", "firmware", "boot", "bootmenu", "bios")),
    "features": frozenset(("acpi", "apic", "pae", "vmport", "pmu", "smm", "kvm")),
    "cpu": frozenset(("model", "vendor", "topology")),
    "devices": frozenset(
        (
            *("emulator", "controller", "input", "memballoon", "console", "serial", "video"),
            *("graphics", "rng", "tpm", "watchdog", "audio", "disk", "interface", "channel"),
        )
    ),
}
_SHOWN = ("type", "mode", "model", "name", "placement", "cpuset", "current", "offset", "policy")


def leftovers(domain: Node) -> Iterator[tuple[str, str]]:
    """Paths of elements, and what there is of each."""
    for parent, said in _SAID.items():
        holder = domain if not parent else domain.find(parent)
        if holder is None:
            continue
        for node in holder.iterchildren("*"):
            if tag(node) not in said:
                yield path_of(node, parent), described(node)
    yield from _odd_values(domain)


def path_of(node: Node, parent: str = "devices") -> str:
    """Where an element is, e.g. "devices/disk[vda]", "devices/hostdev[1]"."""
    target = node.find("target")
    name = (target.get("dev") or target.get("name")) if target is not None else node.get("name")
    if not name:
        same = list(node.itersiblings(node.tag, preceding=True))
        name = str(len(same)) if parent == "devices" or same else ""
    path = f"{parent}/{tag(node)}" if parent else tag(node)
    return f"{path}[{name}]" if name else path


def described(node: Node) -> str:
    """The element's name with its harmless attributes, e.g. "hostdev mode=subsystem type=pci"."""
    shown = (f"{name}={node.get(name)}" for name in _SHOWN if node.get(name))
    return " ".join((tag(node), *shown))


def tag(node: Node) -> str:
    """An element's name without its namespace."""
    return str(node.tag).rpartition("}")[2]


def _odd_values(domain: Node) -> Iterator[tuple[str, str]]:
    """Values of ordinary elements that are not those which every instance has."""
    current, whole = domain.findtext("currentMemory"), domain.findtext("memory")
    if current is not None and current != whole:
        yield "currentMemory", f"{current} KiB"
    for name, usual in (("on_reboot", "restart"), ("on_crash", "destroy")):
        value = domain.findtext(name, usual)
        if value not in (usual, "restart"):
            yield name, value
    clock = domain.find("clock")
    if clock is not None and clock.get("offset", "utc") != "utc":
        yield "clock", described(clock)
    vcpu = domain.find("vcpu")
    if vcpu is not None and (vcpu.get("current") or vcpu.get("cpuset")):
        yield "vcpu", described(vcpu)
