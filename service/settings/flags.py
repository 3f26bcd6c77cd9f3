"""The daemon's flags; in their defaults and ranges is what each setting may be."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from virtrpc.address import default_socket

from backends.images import ImagePolicy
from backends.plan.extra_spec_values import cpu_set
from service.consoles.recording import DEFAULT_MAX_AGE_S, DEFAULT_MAX_BYTES
from service.inventory import InventoryPolicy
from service.settings.access import ACCESS_FLAGS
from service.settings.file import read_file
from service.settings.types import CidrNetwork, Folder, Seconds


def _default_state_dir() -> Path:
    if os.geteuid() == 0:
        return Path("/var/lib/virtrpc")
    base = os.environ.get("XDG_STATE_HOME") or Path("~/.local/state").expanduser()
    return Path(base) / "virtrpc"


def _some(
    _context: click.Context, _parameter: click.Parameter, addresses: tuple[str, ...]
) -> tuple[str, ...]:
    if not addresses:
        raise click.BadParameter("the daemon would serve nowhere")
    return addresses


def _cpus(_context: click.Context, parameter: click.Parameter, text: str) -> frozenset[int]:
    """Host CPUs by number."""
    if not text:
        return frozenset()
    try:
        cpus = cpu_set(text)
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is not {error}", param=parameter) from None
    return cpus.included - cpus.excluded


FLAGS: tuple[Callable[[Any], Any], ...] = (
    click.option(
        "--config", type=click.Path(path_type=Path, dir_okay=False), is_eager=True,
        expose_value=False, callback=read_file, help="TOML file with any of the settings here.",
    ),
    click.option("--backend", default="libvirt", show_default=True, help="Hypervisor backend."),
    click.option(
        "--state-dir", type=Folder(), default=_default_state_dir,
        help="Journal, events and instances  [default: /var/lib/virtrpc as root]",
    ),
    click.option(
        "--image-dir", type=Folder(), default=None,
        help="Image store  [default: images below the state directory]",
    ),
    click.option(
        "--listen", multiple=True, default=(default_socket(), "127.0.0.1:50051"),
        show_default=True, callback=_some,
        help="Address to serve on: unix:/path, host:port, or grpcs://host:port with TLS and"
        " certificates of clients. Repeatable.",
    ),
    click.option(
        "--insecure", is_flag=True,
        help="Let anybody be the administrator who reaches an address beyond loopback that is"
        " served without TLS.",
    ),
    *ACCESS_FLAGS,
    click.option(
        "--metrics", default="127.0.0.1:9177", show_default=True,
        help="Address of the Prometheus endpoint; empty: none.",
    ),
    click.option(
        "--http", default="", metavar="HOST:PORT",
        help="Address of the web console, https:// before it for TLS  [default: none]",
    ),
    click.option(
        "--http-url", default="", metavar="URL",
        help="By which browsers reach the web console  [default: the address it is served on]",
    ),
    click.option(
        "--web-dir", type=Folder(file_okay=False),
        default=Path(sys.prefix, "share/virtrpc/web"),
        show_default="share/virtrpc/web of the environment",
        help="The built pages of the web console.",
    ),
    click.option(
        "--recording-max-age", type=Seconds(0, 100 * 365 * 24 * 3600),
        default=DEFAULT_MAX_AGE_S, show_default=True,
        help="Seconds that recordings of console attachments are kept.",
    ),
    click.option(
        "--recording-max-size", type=click.IntRange(1, 1 << 40), default=DEFAULT_MAX_BYTES,
        show_default="64 MiB", help="Most bytes of console output in a recording.",
    ),
    click.option(
        "--peer-network", multiple=True, type=CidrNetwork(), metavar="CIDR",
        help="Network to whose daemons this one speaks without TLS when an instance migrates."
        " Repeatable  [default: loopback only]",
    ),
    click.option(
        "--instance-dir", type=Folder(), default=None,
        help="Directory in which instances have their own; a shared one migrates without copies"
        "  [default: instances below the state directory]",
    ),
    click.option(
        "--hypervisor-uri", default="", metavar="URI",
        help="At which other hosts' libvirt reaches this host's, e.g."
        " qemu+tcp://192.0.2.7/system; empty: instances are only migrated here when the caller"
        " says it.",
    ),
    click.option(
        "--migration-uri", default="", metavar="URI",
        help="At which this host receives the memory of guests, e.g. tcp://192.0.2.7; empty: as"
        " the hypervisor chooses.",
    ),
    click.option(
        "--migration-tls", is_flag=True,
        help="Hypervisors encrypt what they send each other, unless a migration says otherwise.",
    ),
    click.option(
        "--rollback-patience", type=click.FloatRange(0, 3600), default=60.0, show_default=True,
        help="Seconds that a failed migration holds its instance for a destination that is silent;"
        " after them the destination is asked beside it, until it answers.",
    ),
    click.option(
        "--libvirt-uri", default="qemu:///embed", show_default=True,
        help="Connection of the libvirt backend.",
    ),
    click.option(
        "--virt-type", type=click.Choice(("auto", "kvm", "qemu")), default="auto",
        show_default=True, help="Acceleration; auto: KVM where the CPU and /dev/kvm allow.",
    ),
    click.option(
        "--fake-faults", default="", metavar="RULES",
        help="Faults and delays of the fake backend, e.g. 'spawn_instance.start=fail'.",
    ),
    click.option(
        "--fake-lacks", default="", metavar="CAPABILITIES",
        help="What the fake backend says it cannot do, e.g. 'suspend_instance,uefi'.",
    ),
    click.option(
        "--sample-interval", type=Seconds(0.1, 3600), default=10.0,
        show_default=True, help="Seconds between samples of the guests' counters.",
    ),
    click.option(
        "--resume-instances", is_flag=True, help="At the first start after the host has restarted,"
        " start the instances that should run.",
    ),
    click.option(
        "--reclaim-after", type=Seconds(0, 365 * 24 * 3600), default=7 * 24 * 3600,
        show_default=True, help="Seconds that soft-deleted instances are kept.",
    ),
    click.option(
        "--rescue-timeout", type=click.FloatRange(0, 365 * 24 * 3600), default=24 * 3600,
        show_default=True, help="Seconds that instances may be in rescue; 0: any time.",
    ),
    click.option(
        "--share-dir", multiple=True, type=Folder(file_okay=False),
        help="Directory that MountShare may share, with all below it; none: it may share nothing."
        " Repeatable.",
    ),
    click.option(
        "--image-source-dir", multiple=True, type=Folder(file_okay=False),
        help="Directory that PullImage may read files from. Repeatable  [default: none]",
    ),
    click.option(
        "--image-url-prefix", multiple=True,
        help="Address below which images may be fetched. Repeatable  [default: any but this"
        " host's own]",
    ),
    click.option(
        "--image-max-size", type=click.IntRange(1, 1 << 46), default=ImagePolicy.max_size_bytes,
        show_default="64 GiB", help="Most bytes of an image's file.",
    ),
    click.option(
        "--image-max-virtual-size", type=click.IntRange(1, 1 << 46),
        default=ImagePolicy.max_virtual_size_bytes, show_default="1 TiB",
        help="Most bytes of the disk in an image.",
    ),
    click.option(
        "--image-max-unused-age", type=Seconds(0, 365 * 24 * 3600),
        default=ImagePolicy.max_unused_age_s, show_default=True,
        help="Seconds after which evictable images that nobody uses are deleted.",
    ),
    click.option(
        "--image-cache-interval", type=Seconds(0, 24 * 3600), default=600.0,
        show_default=True, help="Seconds between looks for unused images; 0: never by itself.",
    ),
    click.option(
        "--volume-dir", multiple=True, type=Folder(file_okay=False),
        help="Directory that volumes of this host may be attached from: files, block devices,"
        " NBD sockets. Repeatable  [default: none]",
    ),
    click.option(
        "--cpu-allocation-ratio", type=click.FloatRange(0.1, 100), default=1.0, show_default=True,
        help="How often GetInventory lets schedulers give each host CPU away.",
    ),
    click.option(
        "--memory-allocation-ratio", type=click.FloatRange(0.1, 100), default=1.0,
        show_default=True, help="The same for memory.",
    ),
    click.option(
        "--disk-allocation-ratio", type=click.FloatRange(0.1, 100), default=1.0,
        show_default=True, help="The same for disk.",
    ),
    click.option(
        "--reserved-cpus", type=click.IntRange(0, 4096), default=0, show_default=True,
        help="Host CPUs that GetInventory keeps from instances.",
    ),
    click.option(
        "--reserved-memory", type=click.IntRange(0, 1 << 24), metavar="MIB",
        default=InventoryPolicy.reserved_memory_mib, show_default=True,
        help="Memory that it keeps from them.",
    ),
    click.option(
        "--reserved-disk", type=click.IntRange(0, 1 << 20), default=0, show_default=True,
        metavar="GIB", help="Disk that it keeps from them.",
    ),
    click.option(
        "--dedicated-cpus", default="", metavar="CPUS", callback=_cpus,
        help="Host CPUs kept for instances that have them to themselves, e.g. 2-7,^5"
        "  [default: none; any may be given away, and shared]",
    ),
    click.option(
        "--pci-passthrough", multiple=True, metavar="PATTERN",
        help="PCI devices that instances may be given, by vendor:product or address, e.g. 8086:*."
        " Repeatable  [default: none]",
    ),
    click.option(
        "--allow-host-power", is_flag=True, help="Let HostPowerAction shut down and restart the"
        " host.",
    ),
    click.option(
        "--host-shutdown-command", multiple=True, metavar="WORD",
        help="Program that shuts the host down; repeat the flag for each of its arguments"
        "  [default: systemctl poweroff]",
    ),
    click.option(
        "--host-reboot-command", multiple=True, metavar="WORD",
        help="The same for a restart  [default: systemctl reboot]",
    ),
    click.option(
        "--grace", type=Seconds(0, 3600), default=10.0, show_default=True,
        help="Seconds that running operations have at a stop.",
    ),
    click.option(
        "--log-format", type=click.Choice(("console", "json")), default="console",
        show_default=True, help="Format of the log on standard error.",
    ),
    click.option(
        "--log-level", type=click.Choice(("debug", "info", "warning", "error")), default="info",
        show_default=True, help="Least level that is logged.",
    ),
)  # fmt: skip
