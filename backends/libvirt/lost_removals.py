"""Removals of devices that a death of the daemon cut off, made good before libvirt sees them.

    guest lets go ──▶ QEMU removes what is behind the device ──▶ libvirt writes its status file
                                                             ╰─ killed here

At its next start libvirt misses the device in QEMU and begins with the second step again. QEMU
knows of nothing behind it any more, which libvirt (9.0) takes for a machine that it cannot have
back: it kills the guest. So there is a stand-in for libvirt to remove. The embedded driver begins
with the daemon, which so can be there before it; a libvirtd that is killed has the same fault.
"""

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import structlog
from lxml import etree

from backends.libvirt.monitor import Monitor, RefusedError
from backends.libvirt.xml.element import Node, parse
from backends.libvirt.xml.interface import Interface
from backends.libvirt.xml.shares import Filesystem

_TIMEOUT_S, _AT_ONCE = 1.0, 16
log = structlog.get_logger()


@dataclass(frozen=True)
class StandIn:
    """The command of QEMU's monitor that makes it, named as libvirt names what it removes."""

    command: str
    arguments: Mapping[str, object]


@dataclass(frozen=True)
class Machine:
    """What libvirt has noted of a machine that ran when its process ended."""

    name: str
    monitor: str
    """Path of the socket."""
    stand_ins: Mapping[str, StandIn]
    """By the alias of the device that has something behind it."""


def put_stand_ins(root: Path) -> None:
    """Puts one wherever the driver of a root folder would not find what it is about to remove.

    Before that driver is opened: a monitor takes one client. Each machine is asked for a second
    at most, several at once; what fails is logged, and libvirt will find it out for itself.
    """
    noted = [read_status(path) for path in sorted((root / "run/qemu").glob("*.xml"))]
    machines = [machine for machine in noted if machine is not None and machine.stand_ins]
    if machines:
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="lost-removals") as pool:
            list(pool.map(_ask, machines))


def read_status(path: Path) -> Machine | None:
    """A machine from libvirt's status file; None where that cannot be understood."""
    try:
        status = parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, etree.XMLSyntaxError) as error:
        log.warning("status of a machine not read", path=str(path), reason=str(error))
        return None
    monitor = status.find("monitor[@type='unix']")
    if monitor is None:
        return None
    # libvirt removes only what it has once seen in QEMU.
    seen = {node.get("alias") for node in status.iterfind("devices/device")}
    stand_ins = {alias: one for alias, one in _stand_ins(status) if alias in seen}
    return Machine(path.stem, monitor.get("path", ""), stand_ins)


def _stand_ins(status: Node) -> Iterator[tuple[str, StandIn]]:
    """Source of the names: libvirt's qemu_alias.c and qemuDomainRemove{Net,FS}Device."""
    for node in status.iterfind("domain/devices/interface"):
        interface = Interface.from_xml(node)
        if interface.alias and interface.type != "hostdev":  # which has nothing behind it
            hub = {"id": f"host{interface.alias}", "type": "hubport", "hubid": 0}
            yield interface.alias, StandIn("netdev_add", hub)
    for node in status.iterfind("domain/devices/filesystem"):
        share = Filesystem.from_xml(node)
        if share.alias and share.driver == "virtiofs":
            null = {"id": f"chr-vu-{share.alias}", "backend": {"type": "null", "data": {}}}
            yield share.alias, StandIn("chardev-add", null)


def _ask(machine: Machine) -> None:
    try:
        with Monitor(machine.monitor, timeout_s=_TIMEOUT_S) as monitor:
            there = monitor.execute("qom-list", path="/machine/peripheral")
            gone = machine.stand_ins.keys() - {device["name"] for device in there}
            for alias in sorted(gone):
                if _made(monitor, machine.stand_ins[alias]):
                    log.warning("a removal was cut off", name=machine.name, device=alias)
    except OSError as error:
        log.warning("machine not asked for its devices", name=machine.name, reason=str(error))
    except Exception:
        # Whatever one machine says, the daemon starts.
        log.exception("a machine's answer not understood", name=machine.name)


def _made(monitor: Monitor, stand_in: StandIn) -> bool:
    """False where the name is taken: what is behind the device has not gone yet."""
    try:
        monitor.execute(stand_in.command, **stand_in.arguments)
    except RefusedError as error:
        log.debug("no stand-in needed", reason=str(error))
        return False
    return True
