"""The daemon's state directory: one daemon owns it, by a lock that dies with the process."""

import fcntl
import os
import uuid
from pathlib import Path


class StateInUseError(Exception):
    """Another daemon has the lock."""


class Lock:
    """An exclusive lock on a file, held until it is released or the process ends."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.pread(self._descriptor, 32, 0).decode("ascii", "replace").strip()
            os.close(self._descriptor)
            raise StateInUseError(f"{path} is held by process {holder or 'unknown'}") from None
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{os.getpid()}\n".encode("ascii"), 0)

    def release(self) -> None:
        """Lets another take it."""
        os.close(self._descriptor)


class StateDir:
    """Paths below the state directory, which is made and locked."""

    def __init__(self, path: Path) -> None:
        # Hypervisor processes of another user must reach the disks below it;
        # each file has a mode of its own.
        path.mkdir(mode=0o711, parents=True, exist_ok=True)
        self.path = path.resolve()
        self._lock = Lock(self.path / "lock")
        self.host_id = self._host_id()

    @property
    def journal(self) -> Path:
        """File of the operations' journal."""
        return self.path / "journal.sqlite"

    @property
    def events(self) -> Path:
        """File of the event log."""
        return self.path / "events.sqlite"

    @property
    def tokens(self) -> Path:
        """File of what proves the tokens of consoles."""
        return self.path / "consoles.sqlite"

    @property
    def recordings(self) -> Path:
        """Directory of recorded attachments."""
        return self.path / "recordings"

    @property
    def boot(self) -> Path:
        """File with the id of the host's boot that a daemon last ran in."""
        return self.path / "boot_id"

    @property
    def host_state(self) -> Path:
        """File of what the service itself knows of its host."""
        return self.path / "host.sqlite"

    def release(self) -> None:
        """Lets another daemon have it."""
        self._lock.release()

    def _host_id(self) -> str:
        path = self.path / "host_id"
        if not path.exists():
            fresh = path.with_suffix(".new")
            fresh.touch(mode=0o600)
            fresh.write_text(f"{uuid.uuid4()}\n", encoding="ascii")
            fresh.rename(path)
        return path.read_text(encoding="ascii").strip()
