"""qemu-img as the service runs it: nobody's rights, limits, and no look at the image."""

import os
from collections.abc import Callable
from pathlib import Path

import inotify_simple
import pytest
from virtrpc.v1.spec_pb2 import DISK_FORMAT_QCOW2

from backends.errors import HypervisorError, NoRoomError
from backends.images import ImageStore, qemu_img
from backends.libvirt.disks import make_overlay
from backends.qcow2 import read_header
from tests.conformance.image.hostile import sound_qcow2


@pytest.fixture
def folder(short_folder: Callable[[], Path]) -> Path:
    return short_folder()


def test_file_of_root_alone_cannot_be_read(folder: Path) -> None:
    secret = folder / "secret"
    secret.write_bytes(b"s" * 4096)
    secret.chmod(0o600)
    with pytest.raises(HypervisorError, match="Permission denied"):
        qemu_img.run("info", "-f", "raw", str(secret))
    secret.chmod(0o644)
    assert b"file format: raw" in qemu_img.run("info", "-f", "raw", str(secret))


def test_disk_of_a_user_is_read_as_that_user(folder: Path) -> None:
    disk = folder / "disk"
    disk.write_bytes(b"d" * 4096)
    os.chown(disk, 12345, 12345)
    disk.chmod(0o600)
    account = qemu_img.Account.owning(disk)
    assert account == qemu_img.Account(12345, 12345)
    assert qemu_img.run("info", "-f", "raw", str(disk), account=account)


def test_file_grows_to_its_limit_at_most(folder: Path) -> None:
    path = folder / "large"
    qemu_img.make_output(path)
    source = folder / "source"
    source.write_bytes(os.urandom(8 << 20))
    with pytest.raises(NoRoomError):
        qemu_img.run("convert", "-f", "raw", "-O", "qcow2", str(source), str(path),
                     max_file_bytes=1 << 20)  # fmt: skip
    assert path.stat().st_size <= 1 << 20


def test_program_that_does_not_end_is_ended(folder: Path) -> None:
    with pytest.raises(HypervisorError, match="longer than"):
        os.mkfifo(folder / "fifo")
        qemu_img.run("info", "-f", "raw", str(folder / "fifo"), timeout_s=0.5)


def test_overlay_is_made_without_a_look_at_the_image(folder: Path) -> None:
    image_path = sound_qcow2(folder / "image.qcow2")
    image = ImageStore(folder).find_disk("image", field="")
    assert image.format == DISK_FORMAT_QCOW2
    overlay = folder / "overlay.qcow2"
    with inotify_simple.INotify() as watch:
        watch.add_watch(image_path, inotify_simple.flags.OPEN)
        make_overlay(overlay, image, size_bytes=0)
        assert watch.read(timeout=0) == []
    with overlay.open("rb") as file:
        header = read_header(file)
    assert header is not None
    assert header.backing_file == str(image_path)
    assert header.virtual_size_bytes == image.virtual_size_bytes
    status = overlay.stat()
    assert (status.st_uid, status.st_mode & 0o777) == (os.geteuid(), 0o600)
