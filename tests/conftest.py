"""Fixtures that all tests share: a daemon of each backend, and the test guest's images."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.daemon import Connection, DaemonProcess
from tests.images import place_fake_images, place_guest_images

BACKENDS = ("fake", "libvirt")
MakeDaemon = Callable[..., DaemonProcess]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "libvirt: runs real guests in QEMU")
    config.addinivalue_line(
        "markers", "long: takes minutes; run by `make lab` or `make soak` alone"
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks what runs on libvirt, however a test came to that backend."""
    for item in items:
        callspec = getattr(item, "callspec", None)
        if callspec is not None and callspec.params.get("backend") == "libvirt":
            item.add_marker(pytest.mark.libvirt)


@pytest.fixture(
    scope="session",
    params=BACKENDS,
)
def backend(request: pytest.FixtureRequest) -> str:
    """Name of the backend; a test that asks for it runs on each."""
    name: str = request.param
    return name


def pytest_addoption(parser: pytest.Parser) -> None:
    """What the tests can be told."""
    parser.addoption("--seed", default="", help="by which chance the models wander (tests/model)")


@pytest.fixture(scope="session")
def guest_images() -> Callable[[DaemonProcess], None]:
    """Puts the images `kernel`, `ramdisk` and `guest` into a daemon's store."""

    def place(daemon: DaemonProcess) -> None:
        fake = daemon.backend == "fake"
        (place_fake_images if fake else place_guest_images)(daemon.image_dir)

    return place


@pytest.fixture(scope="session")
def short_folder() -> Iterator[Callable[[], Path]]:
    """Makes folders whose paths leave room for the names of Unix sockets (unix(7): 107 bytes)."""
    made: list[Path] = []

    def make() -> Path:
        made.append(Path(tempfile.mkdtemp(prefix="virtrpc-")))
        made[-1].chmod(0o755)
        return made[-1]

    yield make
    for folder in made:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def daemon(
    backend: str,
    short_folder: Callable[[], Path],
    guest_images: Callable[[DaemonProcess], None],
) -> Iterator[DaemonProcess]:
    """The shared daemon of a backend; tests leave it as they found it."""
    folder = short_folder()
    folders = {"image-source": folder / "sources", "share": folder / "sources"}
    arguments = [f"--{kind}-dir={place}" for kind, place in folders.items()]
    arguments += [
        f"--volume-dir={place}" for place in ("/dev", folder / "volumes", folder / "sources")
    ]
    with DaemonProcess(folder, backend=backend, arguments=arguments) as shared:
        shared.sources.mkdir()
        shared.volume_dir.mkdir()
        guest_images(shared)
        yield shared.start()


@pytest.fixture
def connection(daemon: DaemonProcess) -> Iterator[Connection]:
    """A connection to the shared daemon."""
    with daemon.connect() as connected:
        yield connected


@pytest.fixture
def make_daemon(
    short_folder: Callable[[], Path], guest_images: Callable[[DaemonProcess], None]
) -> Iterator[MakeDaemon]:
    """Makes daemons of the test's own, the fake unless said otherwise; not started yet."""
    made: list[DaemonProcess] = []

    def make(*arguments: str, backend: str = "fake", folder: Path | None = None,
             **more: Any) -> DaemonProcess:  # fmt: skip
        daemon = DaemonProcess(
            folder or short_folder(), backend=backend, arguments=arguments, **more
        )
        guest_images(daemon)
        made.append(daemon)
        return daemon

    yield make
    for daemon in made:
        if daemon.process is not None and daemon.process.poll() is None:
            daemon.stop()
