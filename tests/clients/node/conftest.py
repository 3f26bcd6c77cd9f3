"""The controller, built as a user builds it."""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.clients.node.controller import Controller
from tests.daemon import DaemonProcess

NODE_CLIENT = Path(__file__).resolve().parents[3] / "clients" / "node"

StartController = Callable[..., Controller]


@pytest.fixture(scope="session")
def script() -> Path:
    """dist/controller.js, built; the packages are installed anew when the lock file changed."""
    stamp = NODE_CLIENT / "node_modules" / ".installed"
    locked = _digest(NODE_CLIENT / "package-lock.json", NODE_CLIENT / ".npmrc")
    if not stamp.exists() or stamp.read_text() != locked:
        _npm("ci")
        stamp.write_text(locked)
    _npm("run", "build")
    return NODE_CLIENT / "dist" / "controller.js"


@pytest.fixture
def start_controller(script: Path, tmp_path: Path) -> Iterator[StartController]:
    """Starts a controller of a daemon, with more arguments."""
    started: list[Controller] = []

    def start(daemon: DaemonProcess, *arguments: str) -> Controller:
        errors = tmp_path / f"controller-{len(started)}.err"
        controller = Controller(script, "--address", daemon.address, *arguments, errors=errors)
        started.append(controller)
        return controller

    yield start
    for controller in started:
        controller.close()


def _npm(*arguments: str) -> None:
    """Runs npm; a machine without it fails here, since skipping would hide that."""
    program = shutil.which("npm") or pytest.fail("npm is missing (Debian: nodejs, npm)")
    done = subprocess.run(
        [program, *arguments],
        cwd=NODE_CLIENT,
        env={**os.environ, "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def _digest(*paths: Path) -> str:
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in paths)).hexdigest()
