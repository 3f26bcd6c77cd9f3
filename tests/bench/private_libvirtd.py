"""A libvirtd of the bench's own: it neither sees nor touches what the host's has.

Run as a program in a mount namespace of its own (unshare(1)) it puts empty folders
over all that libvirtd writes to, then becomes libvirtd; `PrivateLibvirtd` runs it
so. Its socket is in a folder of its own, so clients need no namespace.
"""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType

_START_TIMEOUT_S = 30.0
# libvirtd's own sockets and pid files are below /run, and so is what it would find of others.
_COVERED = ("/run", "/etc/libvirt", "/var/lib/libvirt", "/var/log/libvirt", "/var/cache/libvirt")
_CONFIGURATION = """\
unix_sock_dir = "{sockets}"
auth_unix_rw = "none"
"""


class LibvirtdError(Exception):
    """libvirtd did not start; the message has its log."""


class PrivateLibvirtd:
    """libvirtd with all its files below `folder`. Use it as a context; takes root."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._socket = folder / "sockets" / "libvirt-sock"
        self.uri = f"qemu+unix:///system?socket={self._socket}"

    def __enter__(self) -> "PrivateLibvirtd":
        for name in ("sockets", *map(_name, _COVERED)):
            (self._folder / name).mkdir(mode=0o755)
        configuration = _CONFIGURATION.format(sockets=self._folder / "sockets")
        (self._folder / "libvirtd.conf").write_text(configuration)
        with self._log_path.open("wb") as log:
            self._process = subprocess.Popen(
                ["unshare", "--mount", "--propagation", "private",
                 sys.executable, "-m", __spec__.name, str(self._folder)],
                stdout=log, stderr=log,
            )  # fmt: skip
        self._wait()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._process.terminate()
        self._process.wait()

    @property
    def _log_path(self) -> Path:
        return self._folder / "libvirtd.log"

    def _wait(self) -> None:
        deadline = time.monotonic() + _START_TIMEOUT_S
        while time.monotonic() < deadline and self._process.poll() is None:
            if self._answers():
                return
            time.sleep(0.05)
        raise LibvirtdError(self._log_path.read_text(errors="replace"))

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as client:
            return client.connect_ex(str(self._socket)) == 0


def _name(path: str) -> str:
    return path.strip("/").replace("/", "-")


def _become_libvirtd(folder: Path) -> None:
    for path in _COVERED:
        subprocess.run(["mount", "--bind", folder / _name(path), path], check=True)
    os.execvp("libvirtd", ["libvirtd", "--config", str(folder / "libvirtd.conf")])  # noqa: S606


if __name__ == "__main__":
    _become_libvirtd(Path(sys.argv[1]))
