"""Looks at the storage of a volume before a hypervisor opens it.

Files, devices and sockets of this host are only taken from the directories of the
configuration; a qcow2 file must refer to nothing outside itself but the files of which
snapshots were taken under its name.
"""

import os
import re
import socket
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from virtrpc.v1.spec_pb2 import DiskFormat, VolumeConnection

from backends.errors import ContractError
from backends.host_paths import OutsideError, is_below, open_below
from backends.images.inspection import inspect
from backends.images.policy import SizeLimits
from backends.images.refusals import ImageRefusedError
from backends.qcow2 import Qcow2Header, read_header
from backends.volumes import refusals
from backends.volumes.attached import format_of
from backends.volumes.iscsi import lun_size
from backends.volumes.luks import is_luks1
from backends.volumes.nbd import export_size
from backends.volumes.nfs import located as located_on_nfs
from backends.volumes.policy import VolumePolicy

_NO_LIMITS = SizeLimits(1 << 62, 1 << 62)
_RBD_PORT = 6789
_SNAPSHOT_SUFFIX = re.compile(r"\.[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$", re.IGNORECASE)
_LONGEST_CHAIN = 64


@dataclass(frozen=True)
class ChainFile:
    """A file that others are based on."""

    path: Path
    format: str
    """Either "raw" or "qcow2"."""


class Storage:
    """The storage that this host may attach."""

    def __init__(self, policy: VolumePolicy, *, initiator: str = "", servers: bool = True) -> None:
        """`initiator` is the host's name for iSCSI targets.

        Without `servers` those of other hosts are taken to be there.
        """
        self._policy = policy
        self._initiator = initiator
        self._servers = servers

    def located(self, volume: VolumeConnection) -> VolumeConnection:
        """The volume by the path where its file really is; without looking whether it is."""
        found = VolumeConnection()
        found.CopyFrom(volume)
        if volume.HasField("nfs") and self._servers:
            found.local_file.CopyFrom(located_on_nfs(volume.nfs))
        if found.HasField("local_file"):
            found.local_file.path = os.path.realpath(found.local_file.path)
        return found

    def check(self, volume: VolumeConnection, *, field: str, timeout_s: float) -> int:
        """Size of a volume in bytes as the guest will see it, header of encryption included.

        0 where only the hypervisor can know. `field` is the path of the connection in the
        request. Raises the errors of AttachVolume.
        """
        kind = volume.WhichOneof("source")
        if kind == "local_file":
            return self._check_file(volume, f"{field}.local_file.path")
        if kind == "local_block":
            return self._check_device(volume, f"{field}.local_block.path")
        if volume.nbd.socket_path:
            self._check_socket(volume.nbd.socket_path, f"{field}.nbd.socket_path")
        return self._check_server(volume, field, timeout_s) if self._servers else 0

    def _check_server(self, volume: VolumeConnection, field: str, timeout_s: float) -> int:
        kind = volume.WhichOneof("source")
        if kind == "nfs":
            return self._check_file(self.located(volume), f"{field}.nfs.file_name", nfs=True)
        if kind == "nbd":
            return export_size(volume.nbd, field=f"{field}.nbd", timeout_s=timeout_s)
        if kind == "iscsi":
            return lun_size(
                volume.iscsi,
                initiator=self._initiator,
                field=f"{field}.iscsi",
                timeout_s=timeout_s,
            )
        if kind == "rbd":
            _reach([_monitor(text) for text in volume.rbd.monitors], timeout_s)
        return 0

    def looked_at(
        self, volume: VolumeConnection, *, field: str, timeout_s: float
    ) -> tuple[int, list[ContractError]]:
        """As `check`, with what is wrong instead of raising it."""
        try:
            return self.check(volume, field=field, timeout_s=timeout_s), []
        except ContractError as error:
            return 0, [error]

    def chain(self, volume: VolumeConnection) -> list[ChainFile]:
        """Files below a volume's own, the nearest first; call after `check`."""
        if format_of(volume) != DiskFormat.DISK_FORMAT_QCOW2:
            return []
        return list(chain_below(Path(self.located(volume).local_file.path)))

    def _check_file(self, volume: VolumeConnection, field: str, *, nfs: bool = False) -> int:
        path = Path(volume.local_file.path)
        allowed = [path.parent] if nfs else self._policy.dirs
        with _opened(str(path), allowed, field) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise refusals.path_misleads(field, "a regular file")
            _check_encryption(file, volume, field)
            if format_of(volume) == DiskFormat.DISK_FORMAT_QCOW2:
                return _inspected(file, path, field)
            return os.fstat(file.fileno()).st_size

    def _check_device(self, volume: VolumeConnection, field: str) -> int:
        """Links to devices lead out of their directory, as those in /dev/disk: udev made them."""
        path = os.path.normpath(volume.local_block.path)
        if not is_below(path, self._policy.dirs) or not os.path.realpath(path).startswith("/dev/"):
            raise refusals.path_not_allowed(field)
        with _opened(path, [Path("/dev")], field) as file:
            if not stat.S_ISBLK(os.fstat(file.fileno()).st_mode):
                raise refusals.path_misleads(field, "a block device")
            _check_encryption(file, volume, field)
            return os.lseek(file.fileno(), 0, os.SEEK_END)

    def _check_socket(self, path: str, field: str) -> None:
        if not is_below(os.path.realpath(path), self._policy.dirs):
            raise refusals.path_not_allowed(field)


def _opened(path: str, allowed: Sequence[Path], field: str) -> IO[bytes]:
    try:
        return os.fdopen(open_below(path, allowed), "rb")
    except OutsideError as error:
        raise refusals.path_not_allowed(field) from error
    except (FileNotFoundError, NotADirectoryError) as error:
        raise refusals.volume_not_found("there is no such file or device", field) from error
    except OSError as error:
        raise refusals.path_misleads(field, f"a file to open: {error.strerror}") from error


def _check_encryption(file: IO[bytes], volume: VolumeConnection, field: str) -> None:
    if volume.HasField("encryption") and not is_luks1(os.pread(file.fileno(), 8, 0)):
        at = field.rpartition(".")[0]
        raise refusals.encryption_mismatch("the volume has no LUKS1 header", at)


def _inspected(file: IO[bytes], path: Path, field: str, *, above: int = 0) -> int:
    """Size of the disk in a qcow2 file that is safe to open."""
    header = read_header(file)
    below = header.backing_file if header else ""
    if header is not None and below:
        _inspect_below(path, header, field, above=above)
    try:
        file.seek(0)
        return inspect(file, DiskFormat.DISK_FORMAT_QCOW2, _NO_LIMITS)
    except ImageRefusedError as error:
        if below and error.metadata["finding"] == "BACKING_FILE" and header is not None:
            return header.virtual_size_bytes
        why = f"the volume is refused: {error.metadata['finding']}"
        raise refusals.unsafe_volume(why, field) from error


def _inspect_below(path: Path, header: Qcow2Header, field: str, *, above: int) -> None:
    """A backing file is one of which a snapshot was taken: same directory, same name."""
    base, backing_format = path.parent / header.backing_file, header.backing_format
    if base.parent != path.parent or own_name(base.name) != own_name(path.name):
        raise refusals.unsafe_volume("the volume names a backing file", field)
    if base == path or above > _LONGEST_CHAIN:
        raise refusals.unsafe_volume("the volume's files are based on each other", field)
    with _opened(str(base), [path.parent], field) as file:
        if backing_format == "qcow2":
            _inspected(file, base, field, above=above + 1)
        elif backing_format != "raw":
            raise refusals.unsafe_volume("the format of a backing file is not said", field)


def own_name(file_name: str) -> str:
    """The name of a volume's file without the suffix of a snapshot."""
    return _SNAPSHOT_SUFFIX.sub("", file_name)


def chain_below(path: Path) -> Iterator[ChainFile]:
    """What a qcow2 file is based on, the nearest first."""
    for _ in range(_LONGEST_CHAIN):
        with path.open("rb") as file:
            header = read_header(file)
        if header is None or not header.backing_file:
            return
        path = path.parent / header.backing_file
        yield ChainFile(path, header.backing_format)
        if header.backing_format != "qcow2":
            return


def _reach(servers: Sequence[tuple[str, int]], timeout_s: float) -> None:
    """That one of the servers takes connections."""
    last: OSError | None = None
    for server in servers:
        try:
            socket.create_connection(server, timeout_s / len(servers)).close()
        except OSError as error:
            last = error
        else:
            return
    if isinstance(last, TimeoutError):
        raise refusals.storage_timeout(timeout_s) from last
    raise refusals.storage_unreachable(f"the storage cannot be reached: {last}") from last


def _monitor(text: str) -> tuple[str, int]:
    """ "host", "host:port" or "[address]:port"."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit():
        return text.strip("[]"), _RBD_PORT
    return host.strip("[]"), int(port)


def monitors(volume: VolumeConnection) -> list[tuple[str, int]]:
    """Monitors of a Ceph cluster as hosts and ports."""
    return [_monitor(text) for text in volume.rbd.monitors]
