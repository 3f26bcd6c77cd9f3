"""What this host's hypervisor can really do, found out at the start."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import libvirt

from backends.contract import HypervisorFacts

_NOT_YET = "this backend does not do it yet"


@dataclass
class Probed:
    """Facts that the verbs use; filled in at every connect."""

    virt_type: str = "qemu"
    emulator: str | None = None


def probe(
    connection: libvirt.virConnect, uri: str, *, virt_type: str, into: Probed
) -> HypervisorFacts:
    """Asks hypervisor and host; raises libvirt.libvirtError."""
    kind, reason = _virt_type(uri, virt_type)
    into.virt_type = kind
    into.emulator = shutil.which("qemu-system-x86_64") if kind != "test" else None
    split = urlsplit(uri)
    return HypervisorFacts(
        hypervisor_type=connection.getType(),
        hypervisor_version=_dotted(connection.getVersion()),
        library="libvirt",
        library_version=_dotted(connection.getLibVersion()),
        connection=f"{split.scheme}://{split.hostname or ''}{split.path}",
        virt_type=kind,
        virt_type_reason=reason,
        missing={},
        features={
            "kvm": "" if kind == "kvm" else reason,
            "image_qcow2": "",
            "image_raw": "",
            "interface_user": "",
            "rng": "",
            "guest_agent": "",
            "uefi": _NOT_YET,
            "vtpm": _NOT_YET,
            "vnc": _NOT_YET,
            "disk_hotplug": _NOT_YET,
            "interface_hotplug": _NOT_YET,
        },
    )


def _virt_type(uri: str, asked: str) -> tuple[str, str]:
    """Domain type and why, as kvm-ok decides: the CPU's flag and a usable /dev/kvm.

    libvirt announces KVM wherever the module is, even where guests then hang.
    """
    if urlsplit(uri).scheme.startswith("test"):
        return "test", "libvirt's test driver runs no guests"
    if asked != "auto":
        return asked, f"configured: --virt-type {asked}"
    flags = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    if " vmx" not in flags and " svm" not in flags:
        return "qemu", "the CPU has no virtualization extensions (vmx, svm)"
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "qemu", "/dev/kvm cannot be opened"
    return "kvm", "the CPU and /dev/kvm allow it"


def _dotted(version: int) -> str:
    return f"{version // 1_000_000}.{version // 1000 % 1000}.{version % 1000}"
