"""Images that want to read what they must not, or are not what they say."""

import os
import struct
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

from virtrpc.v1.spec_pb2 import DISK_FORMAT_QCOW2, DISK_FORMAT_RAW

from tests.images import GIB, qcow2_header

CLUSTER = 65536


def qemu_img(*arguments: object) -> None:
    subprocess.run(["qemu-img", *map(str, arguments)], check=True, capture_output=True)


def sound_qcow2(path: Path, *, data: bytes = b"x" * CLUSTER) -> Path:
    """A qcow2 image with some data in it."""
    raw = path.with_suffix(".plain")
    raw.write_bytes(data.ljust(4 * CLUSTER, b"y"))
    qemu_img("convert", "-f", "raw", "-O", "qcow2", raw, path)
    raw.unlink()
    return path


def backing_file(path: Path, canary: Path) -> None:
    qemu_img("create", "-q", "-u", "-f", "qcow2", "-F", "raw", "-b", canary, path, "64M")


def nbd_backing(path: Path, _canary: Path) -> None:
    qemu_img("create", "-q", "-u", "-f", "qcow2", "-F", "raw",
             "-b", "nbd://127.0.0.1:10809/export", path, "64M")  # fmt: skip


def json_backing(path: Path, canary: Path) -> None:
    name = f'json:{{"driver":"raw","file":{{"driver":"file","filename":"{canary}"}}}}'
    qemu_img("create", "-q", "-u", "-f", "qcow2", "-F", "raw", "-b", name, path, "64M")


def data_file(path: Path, canary: Path) -> None:
    """The header of one that was made with a data file of its own, and then points elsewhere."""
    own = path.with_suffix(".data")
    qemu_img("create", "-q", "-f", "qcow2", "-o", f"data_file={own},data_file_raw=on", path, "1M")
    image = path.read_bytes()
    path.write_bytes(image.replace(bytes(own), bytes(canary)[: len(bytes(own))].ljust(4)))
    own.unlink()


def vmdk_extents(path: Path, canary: Path) -> None:
    path.write_text(
        "# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\n"
        f'createType="monolithicFlat"\n\nRW 2048 FLAT "{canary}" 0\n\n#DDB\n'
    )


def vmdk_sparse(path: Path, _canary: Path) -> None:
    qemu_img("create", "-q", "-f", "vmdk", path, "1M")


def sixty_four_tebibytes(path: Path, _canary: Path) -> None:
    qemu_img("create", "-q", "-f", "qcow2", "-o", "cluster_size=2M", path, "64T")


def truncated(path: Path, _canary: Path) -> None:
    sound_qcow2(path)
    os.truncate(path, path.stat().st_size // 2)


def truncated_tables(path: Path, _canary: Path) -> None:
    sound_qcow2(path)
    os.truncate(path, CLUSTER)


def encrypted(path: Path, _canary: Path) -> None:
    header = bytearray(qcow2_header())
    struct.pack_into(">I", header, 32, 2)
    path.write_bytes(header)


def unknown_feature(path: Path, _canary: Path) -> None:
    path.write_bytes(qcow2_header(incompatible=1 << 40))


def version_one(path: Path, _canary: Path) -> None:
    path.write_bytes(qcow2_header(version=1).ljust(CLUSTER, b"\0"))


def absurd_tables(path: Path, _canary: Path) -> None:
    header = bytearray(qcow2_header())
    struct.pack_into(">IQ", header, 36, 0xFFFF_FFFF, 104)
    path.write_bytes(header)


def tables_beyond_everything(path: Path, _canary: Path) -> None:
    header = bytearray(qcow2_header())
    struct.pack_into(">IQ", header, 36, 2, 0xFFFF_FFFF_FFFF_FE00)
    path.write_bytes(header)


def too_small_tables(path: Path, _canary: Path) -> None:
    path.write_bytes(qcow2_header(virtual_size=GIB))


def luks(path: Path, _canary: Path) -> None:
    path.write_bytes(b"LUKS\xba\xbe\x00\x01".ljust(CLUSTER, b"\0"))


def plain_qcow2(path: Path, _canary: Path) -> None:
    sound_qcow2(path)


def short_qcow2(path: Path, _canary: Path) -> None:
    path.write_bytes(qcow2_header(backing_file=b"/etc/shadow"))


def nonsense(path: Path, _canary: Path) -> None:
    path.write_bytes(b"\x00\x01" * CLUSTER)


Make = Callable[[Path, Path], None]
# Name → how it is made, format that it is declared to be, finding.
REFUSED: Mapping[str, tuple[Make, int, str]] = {
    "backing file": (backing_file, DISK_FORMAT_QCOW2, "BACKING_FILE"),
    "nbd backing": (nbd_backing, DISK_FORMAT_QCOW2, "BACKING_FILE"),
    "json backing": (json_backing, DISK_FORMAT_QCOW2, "BACKING_FILE"),
    "data file": (data_file, DISK_FORMAT_QCOW2, "DATA_FILE"),
    "vmdk extents as raw": (vmdk_extents, DISK_FORMAT_RAW, "FORMAT_MISMATCH"),
    "vmdk extents as qcow2": (vmdk_extents, DISK_FORMAT_QCOW2, "FORMAT_MISMATCH"),
    "vmdk as raw": (vmdk_sparse, DISK_FORMAT_RAW, "FORMAT_MISMATCH"),
    "truncated": (truncated, DISK_FORMAT_QCOW2, "TRUNCATED"),
    "truncated tables": (truncated_tables, DISK_FORMAT_QCOW2, "TRUNCATED"),
    "encrypted": (encrypted, DISK_FORMAT_QCOW2, "ENCRYPTED"),
    "unknown feature": (unknown_feature, DISK_FORMAT_QCOW2, "UNKNOWN_FEATURE"),
    "version 1": (version_one, DISK_FORMAT_QCOW2, "UNKNOWN_FEATURE"),
    "absurd tables": (absurd_tables, DISK_FORMAT_QCOW2, "MALFORMED"),
    "tables beyond everything": (tables_beyond_everything, DISK_FORMAT_QCOW2, "TRUNCATED"),
    "too small tables": (too_small_tables, DISK_FORMAT_QCOW2, "MALFORMED"),
    "luks as raw": (luks, DISK_FORMAT_RAW, "ENCRYPTED"),
    "qcow2 as raw": (plain_qcow2, DISK_FORMAT_RAW, "FORMAT_MISMATCH"),
    "short qcow2 as raw": (short_qcow2, DISK_FORMAT_RAW, "FORMAT_MISMATCH"),
    "raw as qcow2": (nonsense, DISK_FORMAT_QCOW2, "FORMAT_MISMATCH"),
}
