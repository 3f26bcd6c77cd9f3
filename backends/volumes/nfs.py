"""Files on NFS exports that are mounted on this host.

The daemon mounts nothing: who may attach what an export holds decides by mounting it.
Source: proc(5), /proc/pid/mountinfo.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from virtrpc.v1.spec_pb2 import LocalFileVolume, NfsVolume

from backends.volumes.refusals import storage_unreachable

_MOUNTS = Path("/proc/self/mountinfo")
_ESCAPED = re.compile(r"\\([0-7]{3})")


def located(nfs: NfsVolume, mounts: Path = _MOUNTS) -> LocalFileVolume:
    """The file where its export is mounted; raises STORAGE_UNREACHABLE where it is not."""
    host = f"[{nfs.host}]" if ":" in nfs.host else nfs.host
    export = nfs.export_path.rstrip("/") or "/"
    for source, place in _nfs_mounts(mounts):
        server, _, exported = source.partition(":/")
        if (server, f"/{exported}".rstrip("/") or "/") == (host, export):
            return LocalFileVolume(path=f"{place}/{nfs.file_name}", format=nfs.format)
    raise storage_unreachable(f"{host}:{export} is not mounted on this host")


def _nfs_mounts(mounts: Path) -> Iterator[tuple[str, str]]:
    for line in mounts.read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        before, _, after = line.partition(" - ")
        kind, source, *_ = after.split(" ")
        if kind in ("nfs", "nfs4"):
            yield _plain(source), _plain(before.split(" ")[4])


def _plain(text: str) -> str:
    return _ESCAPED.sub(lambda match: chr(int(match[1], 8)), text)
