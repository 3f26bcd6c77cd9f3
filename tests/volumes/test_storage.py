"""Storage is looked at before a hypervisor opens it: hostile files, servers that misbehave."""

import os
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from virtrpc.v1.spec_pb2 import DiskFormat, NfsVolume, VolumeConnection

from backends.errors import ContractError
from backends.volumes import VolumePolicy
from backends.volumes.nfs import located
from backends.volumes.storage import ChainFile, Storage
from tests.images import qcow2_header
from tests.storage_servers import TARGET, free_port, iscsi_server, nbd_server

MIB = 1 << 20
UUID = "5d1f8a52-3a6e-4c0f-8a43-000000000001"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    allowed = tmp_path / "allowed"
    allowed.mkdir()
    (tmp_path / "canary").write_bytes(b"canary" * 1000)
    return allowed


@pytest.fixture
def storage(folder: Path) -> Storage:
    return Storage(VolumePolicy(dirs=(folder,)))


def file_volume(path: Path, *, qcow2: bool = False) -> VolumeConnection:
    volume = VolumeConnection(volume_id=UUID)
    volume.local_file.path = str(path)
    volume.local_file.format = DiskFormat.DISK_FORMAT_QCOW2 if qcow2 else DiskFormat.DISK_FORMAT_RAW
    return volume


def reason(storage: Storage, volume: VolumeConnection, *, timeout_s: float = 5) -> str:
    """Why it is refused; empty: it is not."""
    _, errors = storage.looked_at(volume, field="device.volume", timeout_s=timeout_s)
    return errors[0].reason if errors else ""


@pytest.mark.parametrize("backing", [b"../canary", b"/etc/passwd", b"other.qcow2", b"nbd://h/x"])
def test_a_backing_file_of_something_else_is_refused(
    storage: Storage, folder: Path, backing: bytes
) -> None:
    (folder / "other.qcow2").write_bytes(qcow2_header())
    (folder / "a.qcow2").write_bytes(qcow2_header(backing_file=backing))
    assert reason(storage, file_volume(folder / "a.qcow2", qcow2=True)) == "UNSAFE_VOLUME"


def test_other_dangers_of_qcow2_are_refused(storage: Storage, folder: Path) -> None:
    for number, header in enumerate(
        (
            qcow2_header(incompatible=1 << 2),  # external data file
            qcow2_header(incompatible=1 << 40),  # a feature that nobody knows
            b"not at all",
            b"",
        )
    ):
        path = folder / f"{number}.qcow2"
        path.write_bytes(header)
        assert reason(storage, file_volume(path, qcow2=True)) == "UNSAFE_VOLUME", number


def test_a_header_that_a_guest_wrote_on_its_raw_disk_means_nothing(
    storage: Storage, folder: Path
) -> None:
    path = folder / "a.raw"
    path.write_bytes(qcow2_header(backing_file=b"/etc/passwd").ljust(MIB, b"\0"))
    assert storage.check(file_volume(path), field="", timeout_s=1) == MIB
    assert storage.chain(file_volume(path)) == []


def test_overlays_of_snapshots_are_of_the_volume(storage: Storage, folder: Path) -> None:
    base, overlay = folder / "v.qcow2", folder / f"v.qcow2.{UUID}"
    for path, on in ((base, ()), (overlay, ("-b", str(base), "-F", "qcow2"))):
        subprocess.run(
            ["qemu-img", "create", "-q", "-f", "qcow2", *on, str(path), "1M"], check=True
        )
    assert reason(storage, file_volume(overlay, qcow2=True)) == ""
    assert storage.chain(file_volume(overlay, qcow2=True)) == [ChainFile(base, "qcow2")]
    base.write_bytes(qcow2_header(backing_file=b"../canary"))
    assert reason(storage, file_volume(overlay, qcow2=True)) == "UNSAFE_VOLUME"


def test_only_what_is_below_the_directories(storage: Storage, folder: Path) -> None:
    (folder / "link").symlink_to(folder.parent / "canary")
    (folder / "dir").mkdir()
    os.mkfifo(folder / "fifo")
    for path in (folder.parent / "canary", folder / "link", folder / "dir/../../canary",
                 folder / "dir", folder / "fifo"):  # fmt: skip
        assert reason(storage, file_volume(path)) == "PATH_NOT_ALLOWED", path
    assert reason(storage, file_volume(folder / "none")) == "VOLUME_NOT_FOUND"
    nothing_allowed = Storage(VolumePolicy())
    (folder / "a").touch()
    assert reason(nothing_allowed, file_volume(folder / "a")) == "PATH_NOT_ALLOWED"


def test_encryption_needs_a_header(storage: Storage, folder: Path) -> None:
    path = folder / "a.raw"
    path.write_bytes(bytes(MIB))
    volume = file_volume(path)
    volume.encryption.passphrase = b"x"
    assert reason(storage, volume) == "ENCRYPTION_MISMATCH"
    path.write_bytes(b"LUKS\xba\xbe\x00\x01" + bytes(MIB))
    assert reason(storage, volume) == ""


def nbd_volume(port: int, **fields: object) -> VolumeConnection:
    volume = VolumeConnection(volume_id=UUID)
    volume.nbd.host, volume.nbd.port = "127.0.0.1", port
    for name, value in fields.items():
        setattr(volume.nbd, name, value)
    return volume


def test_an_nbd_export_tells_its_size(storage: Storage, folder: Path) -> None:
    path = folder / "a.raw"
    path.write_bytes(bytes(3 * MIB))
    with nbd_server(path, export="vol") as port:
        for _ in range(2):
            good = nbd_volume(port, export="vol")
            assert storage.check(good, field="", timeout_s=5) == 3 * MIB
        assert reason(storage, nbd_volume(port, export="none")) == "VOLUME_NOT_FOUND"


@contextmanager
def server(answer: bytes, again: bytes = b"") -> Iterator[int]:
    """Says this and then nothing, or something again and again."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        held: list[socket.socket] = []

        def serve() -> None:
            peer, _ = listening.accept()
            peer.sendall(answer)
            held.append(peer)
            with suppress(OSError):
                while again:
                    peer.sendall(again)
                    time.sleep(0.02)

        thread = threading.Thread(target=serve)
        thread.start()
        yield listening.getsockname()[1]
        thread.join()
        for peer in held:
            peer.close()


GREETING = b"NBDMAGICIHAVEOPT\x00\x03"
REPLY_MAGIC = 0x3E889045565A9


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"", "STORAGE_TIMEOUT"),
        (GREETING, "STORAGE_TIMEOUT"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "STORAGE_REFUSED"),
        (GREETING + struct.pack(">QIII", REPLY_MAGIC, 6, (1 << 31) + 5, 0), "STORAGE_REFUSED"),
        (GREETING + struct.pack(">QIII", REPLY_MAGIC, 6, 1, 1 << 30), "STORAGE_REFUSED"),
        (GREETING + struct.pack(">QIII", 7, 6, 1, 0), "STORAGE_REFUSED"),
    ],
)
def test_a_server_that_misbehaves(storage: Storage, answer: bytes, expected: str) -> None:
    with server(answer) as port:
        assert reason(storage, nbd_volume(port), timeout_s=0.2) == expected


def iscsi_volume(port: int, **fields: object) -> VolumeConnection:
    volume = VolumeConnection(volume_id=UUID)
    volume.iscsi.host, volume.iscsi.port = "127.0.0.1", port
    volume.iscsi.target_iqn, volume.iscsi.lun = TARGET, 1
    for name, value in fields.items():
        setattr(volume.iscsi, name, value)
    return volume


def test_an_iscsi_target_tells_the_size_of_a_lun(storage: Storage, folder: Path) -> None:
    path = folder / "a.raw"
    path.write_bytes(bytes(3 * MIB))
    with iscsi_server(path) as port:
        for _ in range(2):
            assert storage.check(iscsi_volume(port), field="", timeout_s=5) == 3 * MIB
        for wrong in ({"lun": 7}, {"lun": 300}, {"target_iqn": f"{TARGET}x"}):
            _, (error,) = storage.looked_at(
                iscsi_volume(port, **wrong), field="device.volume", timeout_s=5
            )
            assert (error.reason, error.field) == ("VOLUME_NOT_FOUND", "device.volume.iscsi")


def test_an_iscsi_target_lets_in_who_knows_the_password(storage: Storage, folder: Path) -> None:
    path = folder / "a.raw"
    path.write_bytes(bytes(3 * MIB))
    with iscsi_server(path, user="joe", password="right.password") as port:  # noqa: S106
        joe = {"chap_username": "joe", "chap_password": "right.password"}
        assert storage.check(iscsi_volume(port, **joe), field="", timeout_s=5) == 3 * MIB
        for wrong in ({}, {**joe, "chap_password": "wrong"}, {**joe, "chap_username": "jim"}):
            assert reason(storage, iscsi_volume(port, **wrong)) == "STORAGE_REFUSED"


_LOGGED_IN = b"\x23\x87" + bytes(46)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"", "STORAGE_TIMEOUT"),
        (_LOGGED_IN, "STORAGE_TIMEOUT"),
        (_LOGGED_IN[:40], "STORAGE_TIMEOUT"),
        (b"\x20" + bytes(47), "STORAGE_TIMEOUT"),
        (b"SSH-2.0-OpenSSH_9.2\r\n" * 5, "STORAGE_REFUSED"),
        (b"\x23\x87\0\0\0\xff\xff\xff" + bytes(40), "STORAGE_REFUSED"),
        (b"\x20" * 48 * 70, "STORAGE_REFUSED"),
        (b"\x23" + bytes(35) + b"\x03\x01" + bytes(10), "STORAGE_UNREACHABLE"),
        (b"\x23" + bytes(35) + b"\x01\x01" + bytes(10), "STORAGE_REFUSED"),
    ],
)
def test_a_target_that_misbehaves(storage: Storage, answer: bytes, expected: str) -> None:
    """QEMU would wait for it with its guest standing still."""
    with server(answer) as port:
        assert reason(storage, iscsi_volume(port), timeout_s=0.2) == expected


def test_a_server_that_says_little_by_little_is_not_waited_for(storage: Storage) -> None:
    """Each reply would be in time, and there is always one more."""
    more = struct.pack(">QIII", REPLY_MAGIC, 6, 3, 4) + bytes(4)
    with server(GREETING, more) as port:
        assert reason(storage, nbd_volume(port), timeout_s=0.5) == "STORAGE_TIMEOUT"


def test_a_server_that_is_not_there(storage: Storage) -> None:
    port = free_port()
    iscsi = VolumeConnection(volume_id=UUID)
    iscsi.iscsi.host, iscsi.iscsi.port = "127.0.0.1", port
    rbd = VolumeConnection(volume_id=UUID)
    rbd.rbd.monitors.append(f"127.0.0.1:{port}")
    for volume in (nbd_volume(port), iscsi, rbd):
        assert reason(storage, volume) == "STORAGE_UNREACHABLE"


@pytest.mark.parametrize(
    ("host", "export", "expected"),
    [
        ("h", "/a b", "/mnt/x y/f"),
        ("h", "/a b/", "/mnt/x y/f"),
        ("2001:db8::1", "/", "/mnt/root/f"),
        ("h", "/other", None),
        ("h", "/ext", None),
    ],
)
def test_nfs_is_found_where_it_is_mounted(
    tmp_path: Path, host: str, export: str, expected: str | None
) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "1 2 0:1 / /mnt/x\\040y rw shared:1 - nfs4 h:/a\\040b rw\n"
        "1 2 0:1 / /mnt/root rw - nfs [2001:db8::1]:/ rw\n"
        "1 2 8:1 / /ext rw - ext4 h:/ext rw\n"
    )
    nfs = NfsVolume(host=host, export_path=export, file_name="f")
    found: Callable[[], str] = lambda: located(nfs, mounts).path  # noqa: E731
    if expected is None:
        with pytest.raises(ContractError, match="not mounted"):
            found()
    else:
        assert found() == expected
