"""Daemons of the models, and by which chance they wander."""

import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.crash.verdict import end_machines
from tests.daemon import DaemonProcess


@pytest.fixture(scope="module")
def model_daemons(
    short_folder: Callable[[], Path], guest_images: Callable[[DaemonProcess], None]
) -> Iterator[Callable[[str], DaemonProcess]]:
    """Starts daemons of a backend with nothing on them, and a folder for volumes."""
    with ExitStack() as stack:

        def start(backend: str) -> DaemonProcess:
            folder = short_folder()
            stack.callback(end_machines, folder)
            arguments = (f"--volume-dir={folder}/sources",)
            daemon = stack.enter_context(
                DaemonProcess(folder, backend=backend, arguments=arguments)
            )
            daemon.sources.mkdir()
            guest_images(daemon)
            return daemon.start()

        yield start


@pytest.fixture
def seed(pytestconfig: pytest.Config) -> str:
    """By which chance a test wanders; told where it fails, and given again by --seed."""
    chosen: str = pytestconfig.getoption("--seed") or uuid.uuid4().hex[:8]
    print(f"--seed={chosen}")
    return chosen
