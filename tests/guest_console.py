"""A keyboard at a real guest's serial port."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from lxml import etree

from tests.daemon import DaemonProcess

Type = Callable[[str], None]


@contextmanager
def keyboard(daemon: DaemonProcess, name: str) -> Iterator[Type]:
    """Types at the console of the running domain of that name, for as long as it is open.

    Its pseudo-terminal stands in the status that libvirt keeps of a domain. QEMU drops what comes
    from one that is closed again before it was looked at: so it stays open until the end.
    """
    status = etree.parse(daemon.state_dir / "libvirt/run/qemu" / f"{name}.xml")
    (path,) = {str(node.get("path")) for node in status.iterfind(".//devices/serial/source")}
    terminal = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)

    def type_(text: str) -> None:
        os.write(terminal, text.encode())

    try:
        yield type_
    finally:
        os.close(terminal)
