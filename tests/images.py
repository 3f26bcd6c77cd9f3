"""Images for the store of a daemon under test."""

import os
import shutil
import struct
import subprocess
import sys
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
GIB = 1 << 30


def qcow2_header(
    *,
    virtual_size: int = GIB,
    version: int = 3,
    backing_file: bytes = b"",
    incompatible: int = 0,
) -> bytes:
    """First bytes of a qcow2 image (docs/interop/qcow2.txt of QEMU)."""
    backing_offset = 104 if backing_file else 0
    header = struct.pack(
        ">4sIQIIQ", b"QFI\xfb", version, backing_offset, len(backing_file), 16, virtual_size
    )
    header += bytes(72 - len(header))
    header += struct.pack(">QQQII", incompatible, 0, 0, 4, 104)
    return header + backing_file


def place_fake_images(store: Path) -> None:
    """What the fake backend needs of the test guest: files of the right names."""
    store.mkdir(parents=True, exist_ok=True)
    (store / "kernel").write_bytes(b"kernel")
    (store / "ramdisk").write_bytes(b"ramdisk")
    (store / "guest.qcow2").write_bytes(qcow2_header())


def place_guest_images(store: Path) -> None:
    """The real test guest, built at first use."""
    built = _built_guest()
    store.mkdir(parents=True, exist_ok=True)
    for source, name in (
        ("vmlinuz", "kernel"),
        ("initramfs.img", "ramdisk"),
        ("guest.qcow2", "guest.qcow2"),
    ):
        _place(built / source, store / name)


def place_generic_kernel(store: Path) -> None:
    """Debian's ordinary kernel, with SATA and USB, as `kernel-generic` and `ramdisk-generic`."""
    built = _built_guest("generic")
    _place(built / "vmlinuz", store / "kernel-generic")
    _place(built / "initramfs.img", store / "ramdisk-generic")


def guest_cmdline() -> str:
    """Kernel command line of the test guest."""
    return (_built_guest() / "cmdline").read_text(encoding="ascii").strip()


def _place(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)
    target.chmod(0o644)


@cache
def _built_guest(kernel: str = "cloud") -> Path:
    subprocess.run(
        [sys.executable, ROOT / "tests" / "guest" / "build.py", f"--kernel={kernel}"],
        check=True,
        timeout=300,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    return ROOT / ".cache" / ("guest" if kernel == "cloud" else f"guest-{kernel}")
