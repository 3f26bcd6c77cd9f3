"""Where the demonstration runs: its folder, its addresses, and on which hypervisor."""

import os
import shutil
import socket
import stat
import tempfile
from dataclasses import dataclass
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path

from virtrpc.address import SOCKET_PATH_BYTES

ROOT = Path(__file__).resolve().parents[2]
GUEST_DISK = ROOT / ".cache" / "guest" / "guest.qcow2"
# The fake backend has an image of this name built in.
IMAGE = "demo"


@dataclass(frozen=True)
class Place:
    """A folder of our own and the backend that this host allows."""

    folder: Path
    backend: str
    why: str

    @classmethod
    def at(cls, folder: Path) -> "Place":
        """The real hypervisor where it is installed, else the fake."""
        lacking = _lacking()
        if lacking:
            return cls(folder, "fake", f"a simulated hypervisor, for want of {lacking}")
        return cls(folder, "libvirt", "QEMU, embedded by libvirt")

    @property
    def state_dir(self) -> Path:
        """The daemon's state directory."""
        return self.folder / "state"

    @property
    def log(self) -> Path:
        """The daemon's log."""
        return self.folder / "daemon.log"

    def addresses(self) -> list[str]:
        """Where the daemon is to listen; the first one is for us."""
        path = self.folder / "virtrpc.sock"
        tcp = f"127.0.0.1:{free_port()}"
        # A checkout may lie deeper than a socket's address can reach.
        return [f"unix:{path}", tcp] if len(os.fsencode(path)) <= SOCKET_PATH_BYTES else [tcp]

    def prepare(self) -> None:
        """Puts the guest's image into the store."""
        images = self.state_dir / "images"
        for folder in (self.state_dir, images):
            folder.mkdir(mode=0o711, parents=True, exist_ok=True)
        if self.backend == "libvirt":
            # A copy: libvirt gives the file that a disk stands on to QEMU's user.
            shutil.copyfile(GUEST_DISK, images / f"{IMAGE}.qcow2")

    def remove(self) -> None:
        """Removes the folder and all in it."""
        shutil.rmtree(self.folder)


def free_port() -> int:
    """A TCP port of the loopback address that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _lacking() -> str:
    """The first of what QEMU needs and this host has not."""
    present = {
        "qemu-system-x86_64": shutil.which("qemu-system-x86_64"),
        "libvirt-python": find_spec("libvirt"),
        "the test guest": GUEST_DISK.exists(),
    }
    return next((name for name, found in present.items() if not found), "")


def usual_folder() -> Path:
    """`.run`, or one elsewhere where QEMU's user could not pass through our parents."""
    if os.geteuid() != 0 or all(_passable(parent) for parent in (ROOT, *ROOT.parents)):
        return ROOT / ".run"
    digest = sha256(os.fsencode(ROOT)).hexdigest()[:12]
    return Path(tempfile.gettempdir()) / f"virtrpc-run-{digest}"


def _passable(folder: Path) -> bool:
    return bool(folder.stat().st_mode & stat.S_IXOTH)
