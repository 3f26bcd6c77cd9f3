"""Spawn and destroy by libvirt's own calls: what the daemon's are held against.

Run as a program it has an embedded QEMU of its own, as the daemon has, and does
what stands on its standard input: "spawn" or "destroy", each answered with the
seconds it took. `BareLibvirt` runs it so.
"""

import subprocess
import sys
import time
import uuid
from pathlib import Path
from types import TracebackType

import libvirt

from backends.libvirt.connection import start_event_loop
from backends.libvirt.disks import make_overlay
from backends.libvirt.embedded import EmbeddedRoot, Reaper
from tests.bench.domains import images_of, xml_of
from tests.bench.places import guest_spec

_READY = "ready\n"


class BareLibvirt:
    """The program, on images that lie in a folder. Use it as a context."""

    def __init__(self, folder: Path, *, images: Path) -> None:
        self._arguments = [str(folder), str(images)]
        self._log_path = folder / "libvirt.log"

    def __enter__(self) -> "BareLibvirt":
        with self._log_path.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __spec__.name, *self._arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self._process.stdout is not None
        while self._process.stdout.readline() not in (_READY, ""):
            pass
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._process.communicate()

    def seconds(self, command: str) -> float:
        """Carries out "spawn" or "destroy"; gives the seconds it took."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{command}\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())


class _Guest:
    """One guest, spawned and destroyed again and again."""

    def __init__(self, connection: libvirt.virConnect, *, folder: Path, store: Path) -> None:
        self._connection = connection
        self._spec = guest_spec("bare")
        self._images, self._root_image = images_of(self._spec, store)
        self._disk, self._console = folder / "root.qcow2", folder / "console.log"
        self._domain: libvirt.virDomain | None = None

    def spawn(self) -> None:
        """Disk, definition, start."""
        make_overlay(self._disk, self._root_image, size_bytes=0)
        xml = xml_of(
            str(uuid.uuid4()),
            self._spec,
            self._images,
            root_disk=self._disk,
            console=self._console,
        )
        self._domain = self._connection.defineXML(xml)
        self._domain.create()

    def destroy(self) -> None:
        """Stop, definition, files."""
        if self._domain is not None:
            self._domain.destroy()
            self._domain.undefine()
            self._domain = None
            self._disk.unlink()
            self._console.unlink()


def _serve(folder: Path, store: Path) -> None:
    root = EmbeddedRoot("qemu:///embed", default=folder)
    reaper = Reaper()
    start_event_loop()
    guest = _Guest(libvirt.open(root.uri), folder=folder, store=store)
    print(_READY, end="", flush=True)
    try:
        for line in sys.stdin:
            started = time.perf_counter()
            getattr(guest, line.strip())()
            print(time.perf_counter() - started, flush=True)
    finally:
        guest.destroy()
        reaper.close()
        root.close()


if __name__ == "__main__":
    _serve(Path(sys.argv[1]), Path(sys.argv[2]))
