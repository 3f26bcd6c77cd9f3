"""What libvirt has noted of the machines that run: its status files, `ROOT/run/qemu/NAME.xml`.

They are all that the next libvirt will know.
"""

from dataclasses import dataclass
from pathlib import Path

import structlog
from lxml import etree

from backends.libvirt.xml.element import Node, parse

log = structlog.get_logger()


@dataclass(frozen=True)
class Noted:
    """What libvirt has noted of a machine that ran when its process ended."""

    path: Path
    """Of the status file."""
    name: str
    instance_id: str
    pid: int
    monitor: str
    """Path of the socket."""
    seen: frozenset[str]
    """Aliases of the devices that libvirt has once seen in QEMU."""
    known: frozenset[str]
    """Every name that it mentions: of devices, block nodes, secrets, and more."""
    status: Node
    """All of it."""
    domain: Node
    """The machine in it."""


def read_status(path: Path) -> Noted | None:
    """A machine from its status file; None where that cannot be understood."""
    try:
        status = parse(path.read_text(encoding="utf-8"))
        monitor, domain = status.find("monitor[@type='unix']"), status.find("domain")
        if monitor is None or domain is None:
            return None
        return Noted(
            path=path,
            name=path.stem,
            instance_id=domain.findtext("uuid", ""),
            pid=int(status.get("pid", "0")),
            monitor=monitor.get("path", ""),
            seen=frozenset(node.get("alias", "") for node in status.iterfind("devices/device")),
            known=frozenset(str(name) for node in status.iter() for name in node.attrib.values()),
            status=status,
            domain=domain,
        )
    except (OSError, ValueError, etree.XMLSyntaxError) as error:
        log.warning("status of a machine not read", path=str(path), reason=str(error))
        return None
