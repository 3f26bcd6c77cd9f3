"""What this host's hypervisor can really do, found out at the start."""

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import libvirt

from backends.contract import HypervisorFacts
from backends.libvirt import read_only_shares
from backends.libvirt.firmware import has_secure_boot
from backends.libvirt.host_probe import HostFacts, probe_host
from backends.libvirt.migration_features import migration_features
from backends.libvirt.network_features import FIREWALL_VERBS, network_features
from backends.libvirt.xml.capabilities import (
    GuestCapabilities,
    HostCell,
    read_cells,
    read_guest_capabilities,
    read_machine_types,
)

_NOT_YET = "this backend does not do it yet"
_NO_GUESTS = "libvirt's test driver runs no guests"
_MACHINE_TYPE = "q35"
_MODULE_FOLDERS = (
    *Path("/usr/lib").glob("*-linux-gnu"),
    *(Path("/usr") / name for name in ("lib", "lib64")),
)
_MIGRATIONS = (
    *("live_migrate_instance", "abort_live_migration", "force_complete_live_migration"),
    *("check_source", "complete_source", "check_destination", "cleanup_destination_check"),
    *("prepare_destination", "rollback_destination", "complete_destination", "watch_migration"),
    "receive_disk",
)
_COLD = (
    *("migrate_disk_and_power_off", "finish_migration"),
    *("confirm_migration", "revert_migration"),
)
_VHOST_USER_FOLDERS = (Path("/etc/qemu/vhost-user"), Path("/usr/share/qemu/vhost-user"))
_EPHEMERAL_FILESYSTEMS = ("ext2", "ext3", "ext4", "vfat", "xfs")


@dataclass
class Probed:
    """Facts that the verbs use; filled in at every connect, but for what is configured."""

    dedicated_cpus: frozenset[int] = frozenset()
    """Configured: host CPUs kept for instances that have them to themselves."""
    read_only_program: Path = Path(read_only_shares.NAME)
    """Configured: what serves read-only shares."""
    virt_type: str = "qemu"
    emulator: str | None = None
    virtiofsd: str | None = None
    features: Mapping[str, str] = field(default_factory=dict)
    """Features as in HypervisorFacts: name → why it is missing here; "": it is there."""
    machine_types: frozenset[str] = frozenset()
    guests: GuestCapabilities = field(default_factory=GuestCapabilities)
    cells: tuple[HostCell, ...] = ()
    host: HostFacts = field(default_factory=HostFacts)


def probe(
    connection: libvirt.virConnect,
    uri: str,
    *,
    virt_type: str,
    why_no_filter: str,
    into: Probed,
) -> HypervisorFacts:
    """Asks hypervisor and host; raises libvirt.libvirtError."""
    kind, reason = _virt_type(uri, virt_type)
    into.virt_type = kind
    into.emulator = shutil.which("qemu-system-x86_64") if kind != "test" else None
    capabilities, of_domains = connection.getCapabilities(), None
    if kind != "test":
        of_domains = _probe_qemu(connection, capabilities, into)
    into.host = probe_host(connection, capabilities, of_domains)
    split = urlsplit(uri)
    lacks = _missing(split.path, kind).get("live_migrate_instance", "")
    into.features = {
        "kvm": "" if kind == "kvm" else reason,
        **_features(connection, into),
        **network_features(connection, uri, why_no_filter=why_no_filter),
        **migration_features(lacks),
    }
    missing = {
        **_missing(split.path, kind),
        "mount_share": into.features["virtiofs"],
        "snapshot_instance": _NO_GUESTS if kind == "test" else "",
        **dict.fromkeys(FIREWALL_VERBS, why_no_filter),
    }
    return HypervisorFacts(
        hypervisor_type=connection.getType(),
        hypervisor_version=_dotted(connection.getVersion()),
        library="libvirt",
        library_version=_dotted(connection.getLibVersion()),
        connection=f"{split.scheme}://{split.hostname or ''}{split.path}",
        virt_type=kind,
        virt_type_reason=reason,
        missing={verb: why for verb, why in missing.items() if why},
        features=into.features,
    )


def _probe_qemu(connection: libvirt.virConnect, capabilities: str, into: Probed) -> str:
    """Gives the capabilities of domains too."""
    into.cells = read_cells(capabilities)
    into.machine_types = read_machine_types(capabilities, into.virt_type)
    of_domains: str = connection.getDomainCapabilities(
        into.emulator, "x86_64", _MACHINE_TYPE, into.virt_type
    )
    into.guests = read_guest_capabilities(of_domains)
    return of_domains


def _features(connection: libvirt.virConnect, probed: Probed) -> dict[str, str]:
    guests, huge = probed.guests, any(cell.huge_pages for cell in probed.cells)
    real = probed.virt_type != "test"
    uefi = "efi" in guests.firmware
    secure = uefi and guests.secure_loader and has_secure_boot()
    tpm = guests.tpm_emulator and shutil.which("swtpm") and shutil.which("swtpm_setup")
    return {
        "image_qcow2": "",
        "image_raw": "",
        "rng": "",
        "guest_agent": "",
        "watchdog": "" if real else _NO_GUESTS,
        "config_drive_openstack": "",
        "config_drive_nocloud": "",
        "uefi": "" if uefi else "no UEFI firmware is installed (Debian: package ovmf)",
        "secure_boot": "" if secure else "no UEFI firmware with enrolled keys is installed",
        "vtpm": "" if tpm else "swtpm and swtpm_setup are not installed",
        "vnc": "" if "vnc" in guests.graphics else "QEMU was built without VNC",
        "spice": "" if "spice" in guests.graphics else "QEMU has no SPICE module",
        "cpu_pinning": "" if probed.cells else "libvirt does not know the host's CPUs",
        "numa": "" if probed.cells else "libvirt does not know the host's NUMA cells",
        "hugepages": "" if huge else "the host has no huge pages reserved (vm.nr_hugepages)",
        "disk_hotplug": "" if real else _NO_GUESTS,
        "boot_from_volume": "",
        **_volumes(connection),
        **_shares(guests, probed, no_guests=not real),
        **_filesystems(),
    }


def _volumes(connection: libvirt.virConnect) -> dict[str, str]:
    """Kinds of volumes, and what they may have."""
    secrets = _lacks_secrets(connection)
    return {
        "volume_local_file": "",
        "volume_local_block": "",
        "volume_nbd": "",
        "volume_iscsi": _lacks_block_driver("iscsi"),
        "volume_rbd": _lacks_block_driver("rbd"),
        "volume_nfs": "" if _knows_nfs() else "this kernel has no NFS client",
        "volume_encryption": secrets,
        "volume_authentication": secrets,
        "volume_multi_attach": "",
        "volume_qos": "",
    }


def _lacks_secrets(connection: libvirt.virConnect) -> str:
    """Why keys cannot be handed over; empty: they can."""
    try:
        connection.numOfSecrets()
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_NO_SUPPORT:
            raise
        return "this libvirt driver keeps no secrets: use --libvirt-uri qemu:///system"
    return ""


def _lacks_block_driver(name: str) -> str:
    """QEMU's drivers for storage servers are modules of their own."""
    found = any(next(folder.glob(f"qemu*/block-{name}.so"), None) for folder in _MODULE_FOLDERS)
    return "" if found else f"QEMU's module block-{name} is not installed (qemu-block-extra)"


def _knows_nfs() -> bool:
    kinds = Path("/proc/filesystems").read_text(encoding="ascii", errors="replace")
    return "\tnfs\n" in kinds or "\tnfs4\n" in kinds


def _shares(guests: GuestCapabilities, probed: Probed, *, no_guests: bool) -> dict[str, str]:
    """Whether directories can be shared."""
    why, probed.virtiofsd = "", find_virtiofsd()
    if no_guests:
        why = _NO_GUESTS
    elif "virtiofs" not in guests.filesystem_drivers:
        why = "QEMU has no virtiofs device"
    elif probed.virtiofsd is None:
        why = "virtiofsd is not installed (Debian 12: package qemu-system-common)"
    return {
        "virtiofs": why,
        "virtiofs_read_only": why or read_only_shares.why_not(probed.virtiofsd),
    }


def find_virtiofsd() -> str | None:
    """The program, as libvirt finds it: by what QEMU's vhost-user programs say of themselves.

    Source: docs/interop/vhost-user.json of QEMU.
    """
    for folder in _VHOST_USER_FOLDERS:
        for path in sorted(folder.glob("*.json")):
            told = json.loads(path.read_text(encoding="utf-8"))
            program = str(told.get("binary", ""))
            if told.get("type") == "fs" and os.access(program, os.X_OK):
                return program
    return None


def _filesystems() -> dict[str, str]:
    """Filesystems that ephemeral disks can be made with."""
    programs = {name: f"mkfs.{name}" for name in _EPHEMERAL_FILESYSTEMS} | {"swap": "mkswap"}
    return {
        f"filesystem_{name}": "" if shutil.which(program) else f"{program} is not installed"
        for name, program in programs.items()
    }


def _missing(path: str, virt_type: str) -> dict[str, str]:
    """Verbs that this driver of libvirt cannot carry out, and why."""
    if virt_type == "test":
        why = _NO_GUESTS
        return dict.fromkeys((*_MIGRATIONS, *_COLD, "compare_cpu"), why)
    if path == "/embed":
        return dict.fromkeys(_MIGRATIONS, "the embedded driver migrates no guests: use libvirtd")
    return {}


def _virt_type(uri: str, asked: str) -> tuple[str, str]:
    """Domain type and why, as kvm-ok decides: the CPU's flag and a usable /dev/kvm.

    libvirt announces KVM wherever the module is, even where guests then hang.
    """
    if urlsplit(uri).scheme.startswith("test"):
        return "test", _NO_GUESTS
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
