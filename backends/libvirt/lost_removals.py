"""Removals of devices that a death of the daemon cut off, made good before libvirt sees them.

    guest lets go ──▶ QEMU removes what is behind the device ──▶ libvirt writes its status file
                                                             ╰─ killed here

At its next start libvirt misses the device in QEMU and begins with the second step again. QEMU
knows of nothing behind it any more, which libvirt (9.0) takes for a machine that it cannot have
back: it kills the guest. So there is a stand-in for libvirt to remove.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import structlog

from backends.libvirt.monitor import Monitor
from backends.libvirt.status_files import Noted
from backends.libvirt.xml.interface import Interface
from backends.libvirt.xml.shares import Filesystem

log = structlog.get_logger()


@dataclass(frozen=True)
class StandIn:
    """The command of QEMU's monitor that makes it, named as libvirt names what it removes."""

    command: str
    arguments: Mapping[str, object]


def put_stand_ins(monitor: Monitor, noted: Noted, there: Collection[str]) -> None:
    """Puts one wherever libvirt would not find what it is about to remove.

    `there` are the devices that QEMU has.
    """
    for alias, one in sorted(stand_ins(noted).items()):
        # Where it is refused the name is taken: what is behind the device has not gone yet.
        if alias not in there and monitor.obeys(one.command, **one.arguments):
            log.warning("a removal was cut off", name=noted.name, device=alias)


def stand_ins(noted: Noted) -> Mapping[str, StandIn]:
    """By the aliases of a machine's devices that have something behind them."""
    # libvirt removes only what it has once seen in QEMU.
    return {alias: one for alias, one in _stand_ins(noted) if alias in noted.seen}


def _stand_ins(noted: Noted) -> Iterator[tuple[str, StandIn]]:
    """Source of the names: libvirt's qemu_alias.c and qemuDomainRemove{Net,FS}Device."""
    for node in noted.domain.iterfind("devices/interface"):
        interface = Interface.from_xml(node)
        if interface.alias and interface.type != "hostdev":  # which has nothing behind it
            hub = {"id": f"host{interface.alias}", "type": "hubport", "hubid": 0}
            yield interface.alias, StandIn("netdev_add", hub)
    for node in noted.domain.iterfind("devices/filesystem"):
        share = Filesystem.from_xml(node)
        if share.alias and share.driver == "virtiofs":
            null = {"id": f"chr-vu-{share.alias}", "backend": {"type": "null", "data": {}}}
            yield share.alias, StandIn("chardev-add", null)
