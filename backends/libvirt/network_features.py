"""Which kinds of interfaces this host can have, found out at the start."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import libvirt

from backends.libvirt.embedded import is_embedded

_CAP_NET_ADMIN = 12  # capabilities(7)
_OVS_SOCKET = Path("/run/openvswitch/db.sock")
_IOMMU_GROUPS = Path("/sys/kernel/iommu_groups")
_TIMEOUT_S = 10
NOT_REAL = "libvirt's test driver makes no devices"
FIREWALL_VERBS = (
    "refresh_security_group", "refresh_instance_security_rules", "ensure_filtering_rules",
    "unfilter_instance", "defer_filtering", "apply_filtering",
)  # fmt: skip


def network_features(
    connection: libvirt.virConnect, uri: str, *, why_no_filter: str
) -> Mapping[str, str]:
    """Features of interfaces → why they are missing; "": they are there."""
    devices = _why_no_devices(uri)
    return {
        "interface_user": "",
        "interface_bridge": devices,
        "interface_macvtap": devices or _why_no_macvtap(uri),
        "interface_tap": devices,
        "interface_libvirt_network": _why_no_networks(connection, uri),
        "interface_open_vswitch": devices or _why_no_open_vswitch(),
        "interface_vhost_user": NOT_REAL if _is_test(uri) else "",
        "interface_host_device": devices or _why_no_host_devices(),
        "interface_qos": devices or _why_no_limits(),
        "interface_hotplug": NOT_REAL if _is_test(uri) else "",
        "anti_spoofing": why_no_filter,
        "security_groups": why_no_filter,
    }


def _is_test(uri: str) -> bool:
    return urlsplit(uri).scheme.startswith("test")


def _why_no_devices(uri: str) -> str:
    """A libvirtd of the system has the privilege; embedded, the daemon itself needs it."""
    path = urlsplit(uri).path
    if _is_test(uri):
        return NOT_REAL
    if path == "/system":
        return ""
    if path == "/session":
        return "a libvirtd of a user may make no network devices"
    if not _may_administer_networks():
        return "the daemon may make no network devices (capability CAP_NET_ADMIN)"
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        return "/dev/net/tun cannot be opened"
    return ""


def _why_no_macvtap(uri: str) -> str:
    """When such a device goes, libvirt forgets its MAC address in a table that libvirtd makes.

    Seen with 9.0.0: virNetlinkEventRemoveClient locks what is not there.
    """
    if not is_embedded(uri):
        return ""
    return "libvirt crashes where a macvtap goes and no libvirtd runs: use qemu:///system"


def _may_administer_networks() -> bool:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        name, _, value = line.partition(":")
        if name == "CapEff":
            return bool(int(value, 16) >> _CAP_NET_ADMIN & 1)
    return False


def _why_no_networks(connection: libvirt.virConnect, uri: str) -> str:
    if _is_test(uri):
        return NOT_REAL
    try:
        connection.numOfNetworks()
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_NO_SUPPORT:
            raise
        return "this libvirt driver keeps no networks: use qemu:///system"
    return ""


def _why_no_open_vswitch() -> str:
    if shutil.which("ovs-vsctl") is None:
        return "Open vSwitch is not installed (Debian: package openvswitch-switch)"
    return "" if _OVS_SOCKET.exists() else "Open vSwitch does not run"


def _why_no_host_devices() -> str:
    if _IOMMU_GROUPS.is_dir() and any(_IOMMU_GROUPS.iterdir()):
        return ""
    return "the host has no IOMMU, or it is switched off"


def _why_no_limits() -> str:
    """libvirt's limits need the kernel's sfq: asked for in a network namespace of its own."""
    qdisc = ["tc", "qdisc", "add", "dev", "lo", "root", "sfq"]
    try:
        done = subprocess.run(
            ["unshare", "--net", *qdisc],
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"limits cannot be tried: {error}"
    return "" if done.returncode == 0 else f"the kernel has no sfq: {done.stderr.strip()}"
