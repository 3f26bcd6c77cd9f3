"""When machines were started: libvirt keeps the id of each one's process in a file.

The file is written when QEMU is started and removed when it has ended, so its age is the
machine's; no restart of libvirtd or of this daemon changes that.
"""

import os
from pathlib import Path
from urllib.parse import parse_qs, urlsplit


def pid_folder(uri: str) -> Path | None:
    """Where a connection's libvirt has those files; None where it has none on this host."""
    split = urlsplit(uri)
    if split.scheme.partition("+")[0] != "qemu" or split.hostname:
        return None
    if split.path == "/system":
        return Path("/run/libvirt/qemu")
    if split.path == "/session":
        return Path(os.environ.get("XDG_RUNTIME_DIR", "/nonexistent")) / "libvirt/qemu/run"
    root = parse_qs(split.query).get("root")
    return Path(root[0]) / "run/qemu" if split.path == "/embed" and root else None


def started_at_ns(folder: Path | None, name: str) -> int | None:
    """Time of day at which a running machine was started; None where it is not known."""
    if folder is None:
        return None
    try:
        return (folder / f"{name}.pid").stat().st_mtime_ns
    except OSError:
        return None
