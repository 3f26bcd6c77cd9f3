#!/usr/bin/env python3
"""Build the test guest: vmlinuz, initramfs.img, guest.qcow2 and cmdline in one folder.

Needs only Python's standard library, so that it runs before any environment
exists. What the guest does is in init.sh and rootfs/; README.md says how to use it.

    apt's package lists --resolve--> packages --unpack--> root filesystem
        --> initramfs.img --> guest.qcow2 --rename--> output folder

stamp.json in the output folder records what it was built from: unchanged
scripts and package lists are a hit at once; changed package lists lead to a
build only if they offer other versions of the packages used.
"""

import argparse
import fcntl
import hashlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

# Run as a script, this file is not part of a package.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.guest.bootdisk import make_disk
from tests.guest.debs import BuildError, Deb, fetch, resolve, unpack
from tests.guest.initramfs import HERE, assemble, find_kernel, pack

REPOSITORY = HERE.parent.parent
TOOLS = {"apt-get": "apt", "dpkg-deb": "dpkg", "mke2fs": "e2fsprogs", "qemu-img": "qemu-utils"}
KERNELS = {"cloud": "linux-image-cloud-amd64", "generic": "linux-image-amd64"}
PACKAGES = ("busybox-static", "mtools", "qemu-guest-agent", "syslinux", "syslinux-common")
# swiotlb: or else the kernel takes 64 MiB as soon as memory can be hot-plugged.
# no_timer_check: on a busy host an emulated timer is late, and the kernel that tests
# it panics ("IO-APIC + timer doesn't work").
CMDLINE = "console=ttyS0,115200 loglevel=6 mitigations=off swiotlb=1024 no_timer_check"
PACKAGE_LISTS = Path("/var/lib/apt/lists")
Stamp = dict[str, object]


def main() -> int:
    arguments = parse_arguments()
    if arguments.packages:
        print(*sorted(TOOLS.values()))
        return 0
    folder = "guest" if arguments.kernel == "cloud" else f"guest-{arguments.kernel}"
    out = (arguments.out or REPOSITORY / ".cache" / folder).absolute()
    try:
        check_tools()
        with locked(out.with_name(f"{out.name}.lock")):
            provide(out, KERNELS[arguments.kernel])
    except BuildError as error:
        print(f"guest: {error}", file=sys.stderr)
        return 1
    return 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Build the test guest.")
    parser.add_argument("--out", type=Path, help="output folder (default: .cache/guest)")
    parser.add_argument(
        "--kernel",
        choices=KERNELS,
        default="cloud",
        help="generic has AHCI, USB, 9p and watchdogs, but boots slower (in .cache/guest-generic)",
    )
    parser.add_argument("--packages", action="store_true", help="print the apt packages needed")
    return parser.parse_args()


def check_tools() -> None:
    os.environ["PATH"] += os.pathsep + "/usr/sbin:/sbin"
    missing = [package for tool, package in TOOLS.items() if not shutil.which(tool)]
    if missing:
        raise BuildError(f"missing packages: {' '.join(sorted(missing))}")


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Hold a lock file; blocks while another build has it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def provide(out: Path, kernel: str) -> None:
    """Build the guest into out unless it is there, made from the same inputs."""
    present = read_stamp(out)
    scripts = {"scripts": digest_of_scripts(), "lists": digest_of_package_lists()}
    if scripts.items() <= present.items():
        say(f"{out} is up to date")
        return
    if not present and out.exists() and any(out.iterdir()):
        raise BuildError(f"{out} is not empty and not a test guest")
    debs = resolve(kernel, PACKAGES)
    stamp: Stamp = scripts | {"debs": [asdict(deb) for deb in debs]}
    if stamp | {"lists": ""} == present | {"lists": ""}:
        (out / "stamp.json").write_text(json.dumps(stamp, indent=1))
        say(f"{out} is up to date, with the newest packages")
        return
    build(out, debs, stamp)


def read_stamp(out: Path) -> Stamp:
    try:
        stamp: Stamp = json.loads((out / "stamp.json").read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return stamp


def digest_of_scripts() -> str:
    digest = hashlib.sha256()
    for path in sorted(HERE.rglob("*")):
        if path.is_file() and path.suffix not in {".pyc", ".md"}:
            digest.update(f"{path.relative_to(HERE)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()


def digest_of_package_lists() -> str:
    """Identify apt's package lists by their names, sizes and dates, which update changes."""
    entries = sorted(entry for entry in PACKAGE_LISTS.glob("*") if entry.is_file())
    facts = [(entry.name, entry.stat().st_size, entry.stat().st_mtime_ns) for entry in entries]
    return hashlib.sha256(repr(facts).encode()).hexdigest()


def build(out: Path, debs: list[Deb], stamp: Stamp) -> None:
    """Make everything in a folder beside out, then let it take out's place."""
    started = time.monotonic()
    say(f"fetching {len(debs)} packages")
    files = fetch(debs, out.with_name("debs"))
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f"{out.name}.") as work:
        make_guest(files, Path(work))
        result = Path(work, "out")
        (result / "stamp.json").write_text(json.dumps(stamp, indent=1))
        publish(result, out)
    say(f"built {out} in {time.monotonic() - started:.1f} s")


def make_guest(files: list[Path], work: Path) -> None:
    """Unpack the package files in work, and leave the guest in work/out."""
    debs, root, result = (work / name for name in ("debs", "root", "out"))
    say("unpacking")
    unpack(files, debs)
    result.mkdir()
    kernel, initramfs = result / "vmlinuz", result / "initramfs.img"
    shutil.copyfile(find_kernel(debs).image, kernel)
    (result / "cmdline").write_text(f"{CMDLINE}\n")
    say("packing the initramfs")
    assemble(debs, root)
    pack(root, initramfs)
    say("making the disk")
    make_disk(
        debs=debs,
        kernel=kernel,
        initramfs=initramfs,
        cmdline=CMDLINE,
        target=result / "guest.qcow2",
    )


def publish(result: Path, out: Path) -> None:
    """Replace out by result, readable for everyone: QEMU runs as a user of its own."""
    for file in result.iterdir():
        file.chmod(0o644)
    result.chmod(0o755)
    if out.exists():
        out.rename(result.with_name("previous"))
    result.rename(out)


def say(message: str) -> None:
    print(f"guest: {message}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
