"""Fixtures of the tests of the libvirt backend: drivers of libvirt, and one that is private."""

from collections.abc import Callable, Iterator
from pathlib import Path

import libvirt
import pytest

from backends.libvirt.connection import start_event_loop
from tests.daemon import DaemonProcess
from tests.libvirt.lasting import lasting_guest, life
from tests.libvirtd import LibvirtdHost


@pytest.fixture
def test_driver() -> Iterator[libvirt.virConnect]:
    """libvirt's test driver, which runs no guests and keeps its domains in this process."""
    start_event_loop()
    connection = libvirt.open("test:///default")
    yield connection
    connection.close()


@pytest.fixture(scope="module")
def libvirtd(short_folder: Callable[[], Path]) -> Iterator[LibvirtdHost]:
    """A running libvirtd of the module's own."""
    host = LibvirtdHost(short_folder())
    host.start()
    yield host
    host.close()


@pytest.fixture
def qemu_driver(libvirtd: LibvirtdHost) -> Iterator[libvirt.virConnect]:
    """A connection to the QEMU driver of that libvirtd."""
    start_event_loop()
    connection = libvirt.open(libvirtd.uri)
    yield connection
    connection.close()


@pytest.fixture(scope="module")
def folder(short_folder: Callable[[], Path], guest_images: Callable[[DaemonProcess], None]) -> Path:
    """Of daemons that come one after the other (lasting.py), with images and room for volumes."""
    made = short_folder()
    (made / "volumes").mkdir()
    guest_images(life(made))
    return made


@pytest.fixture(scope="module")
def instance_id(folder: Path) -> Iterator[str]:
    """A guest that outlives them."""
    with lasting_guest(folder) as made:
        yield made
