"""Volumes as people note them: a path, or a URI as the daemon itself tells it.

/volumes/a.raw   /dev/mapper/a
nbd://HOST[:PORT]/[EXPORT]   nbd+unix:///[EXPORT]?socket=PATH
iscsi://HOST[:PORT]/TARGET/LUN
rbd:POOL/IMAGE   nfs://HOST/EXPORT/PATH/FILE
"""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from virtrpc.cli.parameters import Converted
from virtrpc.v1.spec_pb2 import VolumeConnection


def source(text: str) -> VolumeConnection:
    """A connection with nothing but its source; raises ValueError for what notes none."""
    made = VolumeConnection()
    if text.startswith("/dev/"):
        made.local_block.path = text
    elif text.startswith("/"):
        made.local_file.path = text
    else:
        parts = urlsplit(text)
        if parts.scheme not in _KINDS:
            raise ValueError(f"{text!r} is neither a path nor {', '.join(_KINDS)}")
        _refuse_the_rest(parts)
        _KINDS[parts.scheme](made, parts)
    return made


def _refuse_the_rest(parts: SplitResult) -> None:
    """What a URI may have and nobody here reads. A password is seen in the list of processes."""
    if parts.username is not None or parts.password is not None:
        raise ValueError("users and passwords are not said in the source: see --user")
    if parts.fragment or (parts.query and parts.scheme != "nbd+unix"):
        raise ValueError(f"of {parts.scheme} nothing is read after ? or #")
    if parts.port == 0:
        raise ValueError("port 0 is none")


def _nbd(made: VolumeConnection, parts: SplitResult) -> None:
    made.nbd.host, made.nbd.port = _host(parts), parts.port or 0
    made.nbd.export = unquote(parts.path.removeprefix("/"))


def _nbd_unix(made: VolumeConnection, parts: SplitResult) -> None:
    sockets = parse_qs(parts.query).get("socket", [])
    if len(sockets) != 1:
        raise ValueError("nbd+unix needs ?socket=PATH")
    made.nbd.socket_path = sockets[0]
    made.nbd.export = unquote(parts.path.removeprefix("/"))


def _iscsi(made: VolumeConnection, parts: SplitResult) -> None:
    target, slash, lun = parts.path.removeprefix("/").rpartition("/")
    if not slash or not lun.isdigit():
        raise ValueError("iscsi needs a target and a LUN: iscsi://HOST/TARGET/LUN")
    made.iscsi.host, made.iscsi.port = _host(parts), parts.port or 0
    made.iscsi.target_iqn, made.iscsi.lun = target, int(lun)


def _rbd(made: VolumeConnection, parts: SplitResult) -> None:
    made.rbd.pool, slash, made.rbd.image = parts.path.partition("/")
    if not slash:
        raise ValueError("rbd needs a pool and an image: rbd:POOL/IMAGE")


def _nfs(made: VolumeConnection, parts: SplitResult) -> None:
    export, _, file_name = parts.path.rpartition("/")
    made.nfs.host, made.nfs.export_path, made.nfs.file_name = _host(parts), export or "/", file_name


def _host(parts: SplitResult) -> str:
    if not parts.hostname:
        raise ValueError(f"{parts.scheme} needs a host")
    return parts.hostname


_KINDS: dict[str, Callable[[VolumeConnection, SplitResult], None]] = {
    "nbd": _nbd,
    "nbd+unix": _nbd_unix,
    "iscsi": _iscsi,
    "rbd": _rbd,
    "nfs": _nfs,
}
SOURCE = Converted("source", source)
