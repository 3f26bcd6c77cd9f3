"""Fixtures of the tests of the libvirt backend: drivers of libvirt, and one that is private."""

from collections.abc import Callable, Iterator
from pathlib import Path

import libvirt
import pytest

from backends.libvirt.connection import start_event_loop
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
