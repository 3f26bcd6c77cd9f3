"""Daemons with a web console, guests with a screen, and a browser."""

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from virtrpc.v1 import console_pb2 as pb
from virtrpc.v1 import instance_pb2, spec_pb2, types_pb2
from virtrpc.v1.console_pb2 import ConsoleType

from deploy.demo.place import free_port
from tests.daemon import Connection, DaemonProcess
from tests.instances import TIMEOUT_S, small_spec, spawned


@dataclass(frozen=True)
class WebHost:
    """A daemon with a web console, and an instance with a screen."""

    daemon: DaemonProcess
    connection: Connection
    instance_id: str
    listens: str
    """Where the web console listens, as HOST:PORT."""

    def access(self, kind: "ConsoleType.ValueType") -> pb.GetConsoleResponse:
        """A new access to a console of the instance."""
        request = pb.GetConsoleRequest(instance_id=self.instance_id, type=kind)
        return self.connection.consoles.GetConsole(request, timeout=TIMEOUT_S)

    def running(self) -> bool:
        """Whether the instance runs."""
        request = instance_pb2.GetInstanceRequest(instance_id=self.instance_id, fresh=True)
        found = self.connection.instances.GetInstance(request, timeout=TIMEOUT_S)
        return found.instance.power_state == types_pb2.POWER_STATE_RUNNING


def web_host(
    backend: str, folder: Path, place_images: Callable[[DaemonProcess], None], *arguments: str
) -> Generator[WebHost, None, None]:
    """One that lives as long as nobody asks for more."""
    listens = f"127.0.0.1:{free_port()}"
    daemon = DaemonProcess(
        folder,
        backend=backend,
        arguments=[f"--http={listens}", "--log-level=debug", *arguments],
    )
    place_images(daemon)
    spec = small_spec(backend=backend, name="web-guest")
    spec.machine.graphics = spec_pb2.GRAPHICS_TYPE_VNC
    with (
        daemon.start(),
        daemon.connect() as connection,
        spawned(connection, spec) as instance_id,
    ):
        yield WebHost(daemon, connection, instance_id, listens)


@pytest.fixture(scope="module")
def fake_host(
    short_folder: Callable[[], Path], guest_images: Callable[[DaemonProcess], None]
) -> Iterator[WebHost]:
    """On the fake."""
    yield from web_host("fake", short_folder(), guest_images)


@pytest.fixture(scope="module")
def real_host(
    short_folder: Callable[[], Path], guest_images: Callable[[DaemonProcess], None]
) -> Iterator[WebHost]:
    """On QEMU."""
    yield from web_host("libvirt", short_folder(), guest_images)
