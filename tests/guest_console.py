"""A keyboard at a real guest's serial port."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from lxml import etree

from tests.daemon import DaemonProcess

Type = Callable[[str], None]


def pty_of(daemon: DaemonProcess, name: str) -> str:
    """The pseudo-terminal of a running domain, from the status that libvirt keeps of it."""
    status = etree.parse(daemon.state_dir / "libvirt/run/qemu" / f"{name}.xml")
    (path,) = {str(node.get("path")) for node in status.iterfind(".//devices/serial/source")}
    return path


@contextmanager
def keyboard(daemon: DaemonProcess, name: str) -> Iterator[Type]:
    """Types at the console of the running domain of that name, for as long as it is open.

    QEMU drops what comes from a pseudo-terminal that is closed again before it was looked at: so
    it stays open until the end.
    """
    terminal = os.open(pty_of(daemon, name), os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)

    def type_(text: str) -> None:
        os.write(terminal, text.encode())

    try:
        yield type_
    finally:
        os.close(terminal)
