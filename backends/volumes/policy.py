"""What the daemon's configuration allows of volumes."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class VolumePolicy:
    """Where on this host volumes may be."""

    dirs: tuple[Path, ...] = ()
    """Directories below which files, block devices and sockets may be attached; none: none.

    Only who may say what is attached should be able to write to them.
    """
