"""The embedded QEMU driver: libvirt inside the daemon, with a root folder of its own.

Guests outlive the daemon; the next one finds them again. While the daemon
lives it is their reaper: without that, libvirt waits for init to notice a dead
guest, and a destroy takes seconds instead of a fifth of one.
"""

import contextlib
import ctypes
import hashlib
import os
import tempfile
import threading
from glob import escape
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

_PR_SET_CHILD_SUBREAPER = 36
# "/lib/qemu/channel/target/domain-NNNNNN-<20 of the name>/org.qemu.guest_agent.0"
_LONGEST_SOCKET_BELOW_ROOT = 84
_LONGEST_SOCKET = 107
_NO_CHILDREN_S, _SHORTEST_S, _LONGEST_S = 0.05, 0.005, 0.25
_QEMU_CONF = """\
# Written by virtrpcd at every start.
# QEMU itself appends consoles to their logs: virtlogd is not part of the embedded driver.
stdio_handler = "file"
# Files below the state directory belong to the daemon when no guest has them.
remember_owner = 0
"""


def is_embedded(uri: str) -> bool:
    """Whether a connection URI means the embedded driver."""
    return urlsplit(uri).path == "/embed"


class EmbeddedRoot:
    """The driver's root folder, prepared, and the URI that opens it."""

    def __init__(self, uri: str, *, default: Path) -> None:
        asked = parse_qs(urlsplit(uri).query).get("root")
        self.folder = Path(asked[0]) if asked else default
        (self.folder / "etc").mkdir(mode=0o711, parents=True, exist_ok=True)
        (self.folder / "etc/qemu.conf").write_text(_QEMU_CONF, encoding="ascii")
        self._link = self._short_link()
        self.uri = f"qemu:///embed?root={quote(str(self._link or self.folder))}"

    def remove_log(self, name: str) -> None:
        """Removes the logs of a domain's QEMU, TPM and shares, which libvirt leaves for ever."""
        logs = self.folder / "log"
        for log in (logs / "qemu" / f"{name}.log", logs / "swtpm" / f"{name}-swtpm.log"):
            log.unlink(missing_ok=True)
        self.remove_share_logs(name)

    def remove_share_logs(self, name: str, alias: str = "ua-share-*") -> None:
        """Removes the log of a domain's share, or those of all of them."""
        for log in (self.folder / "log/qemu").glob(f"{escape(name)}-{alias}-virtiofsd.log"):
            log.unlink(missing_ok=True)

    def close(self) -> None:
        """Takes away what is only needed while the driver is open."""
        if self._link is not None:
            self._link.unlink(missing_ok=True)

    def _short_link(self) -> Path | None:
        """A short way to a deep root: addresses of Unix sockets have 107 bytes."""
        path = str(self.folder)
        if len(path) + _LONGEST_SOCKET_BELOW_ROOT <= _LONGEST_SOCKET:
            return None
        digest = hashlib.sha256(path.encode()).hexdigest()[:12]
        link = Path(tempfile.gettempdir()) / f"virtrpc-{digest}"
        link.unlink(missing_ok=True)
        link.symlink_to(self.folder)
        return link


class Reaper:
    """Takes in the orphans whose parent the daemon has become: guests, and QEMUs that were probed.

    An orphan led a life of its own: a session of its own, and a program of its own.
    Children that somebody in this process waits for are left alone: those started
    by subprocess are in the daemon's session, and what libvirt forks on the way to
    a guest still has the name of one of the daemon's threads.
    """

    def __init__(self) -> None:
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self._closing = threading.Event()
        self._session = os.getsid(0)
        threading.Thread(target=self._run, name="orphan-reaper", daemon=True).start()

    def close(self) -> None:
        """Reaps no more."""
        self._closing.set()

    def _run(self) -> None:
        pause_s = 0.0
        while not self._closing.wait(pause_s):
            dead = _wait_for_dead_child()
            if dead is None:
                pause_s = _NO_CHILDREN_S
            elif self._reap_orphans({dead, *_children()}):
                pause_s = 0.0
            else:
                # Somebody else's; where they forget it, that must cost nothing.
                pause_s = min(max(2 * pause_s, _SHORTEST_S), _LONGEST_S)

    def _reap_orphans(self, children: set[int]) -> bool:
        """Takes in the dead orphans among some children; False where there are none."""
        reaped = False
        for pid in children:
            with contextlib.suppress(ChildProcessError):
                if _is_dead(pid) and self._is_orphan(pid):
                    os.waitpid(pid, 0)
                    reaped = True
        return reaped

    def _is_orphan(self, pid: int) -> bool:
        try:
            name = Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace")
            return os.getsid(pid) != self._session and name not in _thread_names()
        except (FileNotFoundError, ProcessLookupError):
            return False


def _wait_for_dead_child() -> int | None:
    """Waits until a child is dead, and leaves it so; None where there are no children."""
    try:
        found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
    except ChildProcessError:
        return None
    return None if found is None else found.si_pid


def _is_dead(pid: int) -> bool:
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _children() -> set[int]:
    """All of this process's; none where the kernel does not say (CONFIG_PROC_CHILDREN)."""
    children: set[int] = set()
    for path in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            children.update(int(pid) for pid in path.read_text(encoding="ascii").split())
    return children


def _thread_names() -> set[str]:
    names = set()
    for path in Path("/proc/self/task").glob("*/comm"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            names.add(path.read_text(encoding="utf-8", errors="replace"))
    return names
