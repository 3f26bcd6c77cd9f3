"""The processes of machines: which one it is, and when it ends.

libvirt tells that a machine has ended when it has seen to everything, a fifth of a second
later; the kernel tells it at once (pidfd_open(2)).
"""

import os
import select
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def machine_pid(folder: Path | None, name: str, instance_id: str) -> int | None:
    """Process of a running machine by libvirt's file, if it is that machine's indeed.

    In a container the number may be that of another process.
    """
    if folder is None:
        return None
    try:
        pid = int((folder / f"{name}.pid").read_text(encoding="ascii"))
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (OSError, ValueError):
        return None
    return pid if instance_id.encode() in words else None


def has_open(pid: int | None, path: Path) -> bool:
    """Whether a process of this host has a file open."""
    if pid is None or not path.exists():
        return False
    for descriptor in Path(f"/proc/{pid}/fd").glob("*"):
        with suppress(OSError):  # it has been closed meanwhile
            if descriptor.samefile(path):
                return True
    return False


@contextmanager
def telling_the_end(pid: int | None, tell: Callable[[], None]) -> Iterator[None]:
    """Calls `tell` on a thread of its own, if the process ends while the block runs.

    When the block is left, that call has returned.
    """
    try:
        process = None if pid is None else os.pidfd_open(pid)
    except ProcessLookupError:
        process = None
    if process is None:
        yield
        return
    left = os.eventfd(0, os.EFD_CLOEXEC)
    watcher = threading.Thread(
        target=_watch, args=(process, left, tell), name="machine", daemon=True
    )
    watcher.start()
    try:
        yield
    finally:
        os.eventfd_write(left, 1)
        watcher.join()
        os.close(left)
        os.close(process)


def _watch(process: int, left: int, tell: Callable[[], None]) -> None:
    ready, _, _ = select.select([process, left], [], [])
    if process in ready:
        tell()
