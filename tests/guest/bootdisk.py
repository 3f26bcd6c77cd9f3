"""Make the test guest's disk: syslinux boots the kernel from FAT, by BIOS.

    sector 0        boot code and partition table
    1 MiB           FAT, active: kernel, initramfs, syslinux
    DATA_START_MIB  ext4, label virtrpc-data: /mnt/data of the guest

The partitions are written at their offsets in a plain file, so that neither
root nor loop devices are needed.
"""

import os
import struct
from pathlib import Path

from tests.guest.datafs import make_data_filesystem
from tests.guest.debs import run

MIB = 1 << 20
SECTOR = 512
SIZE_MIB, BOOT_START_MIB, DATA_START_MIB = 96, 1, 72
SYSLINUX_CONFIG = """\
default guest
label guest
    kernel vmlinuz
    initrd initramfs.img
    append {cmdline} virtrpc.disk=1
"""


def make_disk(*, debs: Path, kernel: Path, initramfs: Path, cmdline: str, target: Path) -> None:
    """Write a qcow2 file that boots kernel and initramfs with cmdline.

    debs holds the unpacked packages syslinux, syslinux-common and mtools, which run from there.
    """
    raw = target.with_suffix(".raw")
    raw.write_bytes(_master_boot_record(debs / "usr/lib/syslinux/mbr/mbr.bin"))
    os.truncate(raw, SIZE_MIB * MIB)
    config = target.with_name("syslinux.cfg")
    config.write_text(SYSLINUX_CONFIG.format(cmdline=cmdline))
    _write_boot_partition(raw, debs / "usr/bin", [kernel, initramfs, config])
    _write_data_partition(raw)
    run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, target)
    config.unlink()
    raw.unlink()


def _master_boot_record(boot_code: Path) -> bytes:
    boot = _partition_entry(0x80, 0x0E, BOOT_START_MIB, DATA_START_MIB)
    data = _partition_entry(0x00, 0x83, DATA_START_MIB, SIZE_MIB)
    table = boot + data + bytes(32)
    return boot_code.read_bytes().ljust(446, b"\0") + table + b"\x55\xaa"


def _partition_entry(flag: int, kind: int, start_mib: int, end_mib: int) -> bytes:
    """Describe a partition by its sectors; the old cylinder fields say "too large for us"."""
    unused = b"\xfe\xff\xff"
    start, end = (size * MIB // SECTOR for size in (start_mib, end_mib))
    return struct.pack("<B3sB3sII", flag, unused, kind, unused, start, end - start)


def _write_boot_partition(raw: Path, tools: Path, files: list[Path]) -> None:
    offset = BOOT_START_MIB * MIB
    sectors = (DATA_START_MIB - BOOT_START_MIB) * MIB // SECTOR
    drive = f"{raw}@@{offset}"
    environment = {"PATH": f"{tools}:{os.environ['PATH']}", "MTOOLSRC": os.devnull}
    format_options = ("-H", str(offset // SECTOR), "-T", str(sectors), "-h", "64", "-s", "32")
    run(tools / "mformat", "-i", drive, *format_options, "::", env=environment)
    run(tools / "syslinux", "--offset", str(offset), "--install", raw, env=environment)
    run(tools / "mcopy", "-i", drive, *files, "::", env=environment)


def _write_data_partition(raw: Path) -> None:
    partition = raw.with_suffix(".ext4")
    make_data_filesystem(partition, size_mib=SIZE_MIB - DATA_START_MIB)
    with raw.open("r+b") as disk:
        disk.seek(DATA_START_MIB * MIB)
        disk.write(partition.read_bytes())
    partition.unlink()
