"""A libvirtd of a test's own: a host in a mount namespace, all that libvirt keeps in one folder.

    LibvirtdHost ──▶ unshare ──▶ this module as a program, the host's "init"
                                   ├─▶ virtlogd
                                   ├─▶ libvirtd ◀── killed, stopped, started again
                                   └─▶ QEMUs, which it takes in as orphans

The init mounts, runs what it is told on its standard input, and ends everything
that was started below it when that closes: also when the tests themselves die.
"""

import os
import select
import shlex
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

import psutil

from backends.libvirt.embedded import Reaper

_TIMEOUT_S = 60
# Folder of the host → where libvirt has it compiled in.
_MOUNTS = {
    "run": "/run/libvirt",
    "lib": "/var/lib/libvirt",
    "etc": "/etc/libvirt",
    "log": "/var/log/libvirt",
    "cache": "/var/cache/libvirt",
}
_CERTIFICATES, _CERTIFICATES_AT = "pki", "/etc/pki/qemu"
_CONFIGURATION = """\
host_uuid = "{host_uuid}"
auth_unix_rw = "none"
log_outputs = "3:file:{folder}/libvirtd.log"
"""
# For another host's libvirtd, which migrates guests here. Where the network ends so does
# who may call. A peer that is silent for 8 s is given up.
_LISTENING = """\
listen_tls = 0
listen_tcp = 1
listen_addr = "{address}"
auth_tcp = "none"
keepalive_interval = 2
keepalive_count = 3
"""
_QEMU_CONFIGURATION = """\
stdio_handler = "file"
remember_owner = 0
keepalive_interval = 2
keepalive_count = 3
default_tls_x509_verify = 1
"""


class LibvirtdHost:
    """A host with its own libvirtd, in a folder whose path QEMU's user may pass through.

    `name` becomes its hostname; `network` is the name of an `ip netns` namespace
    in which it is, or empty for the one of the tests; with an `address` there other hosts
    reach its libvirtd, and consoles are logged by QEMU itself. `certificates` are QEMU's, by
    the names of their files. libvirtd is not started yet.
    """

    def __init__(
        self,
        folder: Path,
        *,
        name: str = "testhost",
        network: str = "",
        address: str = "",
        certificates: Mapping[str, bytes] | None = None,
    ) -> None:
        self.folder = folder
        self.address = address
        for part in _MOUNTS:
            (folder / part).mkdir(mode=0o755)
        if certificates:
            (folder / _CERTIFICATES).mkdir(mode=0o755)
        for file_name, pem in (certificates or {}).items():
            (folder / _CERTIFICATES / file_name).write_bytes(pem)
        host_uuid = uuid.uuid5(uuid.NAMESPACE_DNS, f"{name}.{uuid.uuid4()}")
        configuration = _CONFIGURATION.format(host_uuid=host_uuid, folder=folder)
        if address:
            configuration += _LISTENING.format(address=address)
            (folder / "etc" / "qemu.conf").write_text(_QEMU_CONFIGURATION, encoding="ascii")
        (folder / "etc" / "libvirtd.conf").write_text(configuration, encoding="ascii")
        self._init = subprocess.Popen(
            [
                *(("ip", "netns", "exec", network) if network else ()),
                *("unshare", "--mount", "--uts"),
                *(sys.executable, "-m", "tests.libvirtd", str(folder), name),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
        )
        self._answer()
        self.run("virtlogd", "-d", "--pid-file=/run/libvirt/virtlogd.pid")

    @property
    def inside(self) -> tuple[str, ...]:
        """What a command begins with to be run in this host, e.g. a daemon's `program`."""
        namespaces = ("--mount", "--uts", "--net")
        return ("nsenter", f"--target={self._init.pid}", *namespaces)

    @property
    def uri(self) -> str:
        """By which this libvirtd is reached from outside the host."""
        return f"qemu:///system?socket={self.folder}/run/libvirt-sock"

    @property
    def pid(self) -> int:
        """Of libvirtd."""
        return int((self.folder / "run" / "libvirtd.pid").read_text(encoding="ascii"))

    @property
    def guests(self) -> list[psutil.Process]:
        """The QEMUs that run in the host, known to libvirtd or not."""
        started = psutil.Process(self._init.pid).children(recursive=True)
        return [process for process in started if _name(process).startswith("qemu-system")]

    def start(self) -> None:
        """Starts libvirtd; it is in reach when this returns."""
        listen = ("--listen",) if self.address else ()
        self.run("libvirtd", "-d", *listen, "--pid-file=/run/libvirt/libvirtd.pid")

    def kill(self) -> None:
        """SIGKILL to libvirtd; guests run on. It is dead when this returns."""
        descriptor = os.pidfd_open(self.pid)
        try:
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            ended, _, _ = select.select([descriptor], [], [], _TIMEOUT_S)
            assert ended, "libvirtd did not end"
        finally:
            os.close(descriptor)

    def freeze(self) -> None:
        """SIGSTOP to libvirtd: it keeps its sockets and answers nothing."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self, pid: int = 0) -> None:
        """SIGCONT to libvirtd, or to the one of that id; raises ProcessLookupError."""
        os.kill(pid or self.pid, signal.SIGCONT)

    def run(self, *command: str) -> None:
        """Runs a command in the host, as its init; what it leaves running is the host's."""
        assert self._init.stdin is not None
        self._init.stdin.write(shlex.join(command) + "\n")
        self._init.stdin.flush()
        code = self._answer()
        assert code == 0, f"{command[0]} ended with {code}"

    def close(self) -> None:
        """Ends everything that was started in the host."""
        with self._init:
            assert self._init.stdin is not None
            self._init.stdin.close()
            self._init.wait(_TIMEOUT_S)

    def log(self) -> str:
        """What libvirtd has logged."""
        path = self.folder / "libvirtd.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def _answer(self) -> int:
        """The init's next answer: the exit code of what it ran."""
        output: IO[str] | None = self._init.stdout
        assert output is not None
        ready, _, _ = select.select([output], [], [], _TIMEOUT_S)
        assert ready, "the host does not answer"
        line = output.readline()
        assert line, f"the host ended with {self._init.wait(_TIMEOUT_S)}"
        return int(line)


def _name(process: psutil.Process) -> str:
    """Of a program that runs; empty where it has ended meanwhile."""
    try:
        return str(process.name())
    except psutil.NoSuchProcess:
        return ""


def main(folder: str, name: str) -> None:
    """The host's init."""
    socket.sethostname(name)
    mounts = {**_MOUNTS, _CERTIFICATES: _CERTIFICATES_AT}
    for part, target in mounts.items():
        if not Path(folder, part).exists():
            continue
        Path(target).mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", "--bind", f"{folder}/{part}", target], check=True)
    reaper = Reaper()
    _say(0)
    for line in sys.stdin:
        _say(_run(shlex.split(line)))
    reaper.close()
    _end_all()


def _run(command: Sequence[str]) -> int:
    """What it leaves running keeps no descriptor of the tests'."""
    quiet = subprocess.DEVNULL
    return subprocess.run(command, stdin=quiet, stdout=quiet, check=False).returncode


def _end_all() -> None:
    """Orphans come to this process, so there is an end to it."""
    while children := psutil.Process().children(recursive=True):
        for child in children:
            child.kill()
        psutil.wait_procs(children, timeout=_TIMEOUT_S)


def _say(code: int) -> None:
    sys.stdout.write(f"{code}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
