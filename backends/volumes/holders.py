"""Whether a hypervisor has a file open, on whatever host: by the locks that QEMU keeps.

QEMU has locks on every image that it has open, whose owners are open file descriptions
(fcntl(2)). A filesystem that hosts share shows each the locks of the other; one that
shares no locks shows none, and then nobody can tell.

Source: QEMU's block/file-posix.c, RAW_LOCK_PERM_BASE and RAW_LOCK_SHARED_BASE.
"""

import fcntl
import os
import struct
from pathlib import Path

_FIRST_BYTE, _BYTES = 100, 200
_FLOCK = struct.Struct("@hhqqi4x")


def is_held(path: Path) -> bool:
    """Whether somebody has such locks on a file. Raises OSError."""
    asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, _FIRST_BYTE, _BYTES, 0)
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        answer = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, asked)
    finally:
        os.close(descriptor)
    return bool(_FLOCK.unpack(answer)[0] != fcntl.F_UNLCK)
