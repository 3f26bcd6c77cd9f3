"""One demonstration at a time in a folder, its daemon included."""

import fcntl
import os
import time
from pathlib import Path

# The daemon of a run that was killed stops by itself, with its grace.
_WAIT_S = 5.0
_PAUSE_S = 0.1


class OccupiedError(Exception):
    """Another run has the folder."""


def take_turn(folder: Path) -> int:
    """Makes the folder ours, as long as any process has the descriptor that is returned.

    Waits a little for who has it; raises OccupiedError then.
    """
    ends_at = time.monotonic() + _WAIT_S
    while time.monotonic() < ends_at:
        folder.mkdir(mode=0o711, parents=True, exist_ok=True)
        descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if _locked(descriptor):
            return descriptor
        os.close(descriptor)
        time.sleep(_PAUSE_S)
    raise OccupiedError(f"another run is on in {folder}")


def _locked(descriptor: int) -> bool:
    """Locks the file, unless somebody has it or had it and removed it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return os.fstat(descriptor).st_nlink > 0
