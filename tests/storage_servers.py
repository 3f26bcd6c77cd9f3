"""Storage servers of a test's own, on loopback: NBD and iSCSI."""

import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

_WAIT_S = 10.0
_CONTROL_PORTS = 32000  # tgtd takes no higher number
_UNIT = ["--mode", "logicalunit", "--tid", "1", "--lun", "1"]
TARGET = "iqn.2026-01.dev.virtrpc.test:volume"


def free_port() -> int:
    """A TCP port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def nbd_server(path: Path, *, export: str = "", socket_path: Path | None = None) -> Iterator[int]:
    """Exports a raw file; gives the TCP port, 0 with a socket."""
    port = 0 if socket_path else free_port()
    where = ["-k", str(socket_path)] if socket_path else ["-b", "127.0.0.1", "-p", str(port)]
    command = ["qemu-nbd", "--persistent", "--shared=8", "--format=raw", *where, "-x", export]
    with _running([*command, str(path)], ("127.0.0.1", port) if port else socket_path):
        if socket_path is not None:
            socket_path.chmod(0o777)
        yield port


@contextmanager
def slow_nbd_server(*, size_bytes: int, bits_per_s: int) -> Iterator[int]:
    """Exports memory, and takes its time; gives the TCP port."""
    port = free_port()
    command = ["nbdkit", "--foreground", f"--port={port}", "--ipaddr=127.0.0.1"]
    plugin = ["--filter=rate", "memory", f"size={size_bytes}", f"rate={bits_per_s}"]
    with _running([*command, *plugin], ("127.0.0.1", port)):
        yield port


@contextmanager
def iscsi_server(path: Path, *, user: str = "", password: str = "") -> Iterator[int]:
    """Exports a raw file as LUN 1 of TARGET; gives the TCP port.

    tgtd ignores SIGTERM: it is told to end, by its control port, which is of its own.
    """
    port = free_port()
    portal, admin = f"portal=127.0.0.1:{port}", _tgtadm(port)
    server = subprocess.Popen(["tgtd", "-f", *admin[1:3], "--iscsi", portal])
    try:
        _wait_for(("127.0.0.1", port))
        target = ["--mode", "target", "--tid", "1"]
        _run([*admin, "--op", "new", *target, "-T", TARGET])
        _run([*admin, "--op", "new", *_UNIT, "-b", str(path)])
        _run([*admin, "--op", "bind", *target, "-I", "ALL"])
        if user:
            account = ["--mode", "account", "--user", user]
            _run([*admin, "--op", "new", *account, "--password", password])
            _run([*admin, "--op", "bind", *account, "--tid", "1"])
        yield port
    finally:
        subprocess.run(
            [*admin, "--op", "delete", "--mode", "target", "--tid", "1", "--force"], check=False
        )
        subprocess.run([*admin, "--op", "delete", "--mode", "system"], check=False)
        _reap(server)


def anew(port: int, path: Path) -> None:
    """Exports the file anew, which has grown: a target looks at it just once."""
    delete = [*_tgtadm(port), "--op", "delete", *_UNIT]
    end = time.monotonic() + _WAIT_S
    while subprocess.run(delete, check=False).returncode:  # not while it serves a request
        assert time.monotonic() < end, "it serves requests all the time"
        time.sleep(0.05)
    _run([*_tgtadm(port), "--op", "new", *_UNIT, "-b", str(path)])


def _tgtadm(port: int) -> list[str]:
    return ["tgtadm", "-C", str(port % _CONTROL_PORTS), "--lld", "iscsi"]


@contextmanager
def loop_device(path: Path) -> Iterator[str]:
    """A block device over a file."""
    found = subprocess.run(
        ["losetup", "--find", "--show", str(path)], check=True, capture_output=True, text=True
    )
    device = found.stdout.strip()
    try:
        yield device
    finally:
        _run(["losetup", "--detach", device])


@contextmanager
def _running(command: Sequence[str], address: tuple[str, int] | Path | None) -> Iterator[None]:
    server = subprocess.Popen(command)
    try:
        _wait_for(address)
        yield
    finally:
        server.terminate()
        _reap(server)


def _reap(server: "subprocess.Popen[bytes]") -> None:
    """Waits for its end; one that does not end fails the test, and is not left to others."""
    try:
        server.wait(_WAIT_S)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
        raise


def _wait_for(address: tuple[str, int] | Path | None) -> None:
    """Returns when somebody listens."""
    end = time.monotonic() + _WAIT_S
    while True:
        family = socket.AF_INET if isinstance(address, tuple) else socket.AF_UNIX
        with socket.socket(family) as probe:
            if not probe.connect_ex(address if isinstance(address, tuple) else str(address)):
                return
        assert time.monotonic() < end, f"nobody listens at {address}"
        time.sleep(0.02)


def _run(command: Sequence[str]) -> None:
    subprocess.run(command, check=True)
