"""Assemble the test guest's root filesystem and pack it as a cpio archive.

The archive is written here rather than by cpio(1): device nodes and root
ownership then need no privileges, and equal inputs give equal bytes. The
format is `newc` of the kernel's Documentation/driver-api/early-userspace/
buffer-format.rst.
"""

import gzip
import re
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.guest.datafs import make_data_filesystem
from tests.guest.debs import BuildError, run

HERE = Path(__file__).resolve().parent
MODULES = HERE / "modules.txt"
FOLDERS = (
    "dev",
    "proc",
    "sys",
    "run",
    "tmp",
    "root",
    "mnt/data",
    "mnt/config",
    "mnt/other",
    "var/lib",
)
RAM_DISK_MIB = 4  # rd_size in init.sh


@dataclass(frozen=True)
class Kernel:
    """An unpacked kernel: its release as uname -r prints it, and the tree it is in."""

    release: str
    root: Path

    @property
    def image(self) -> Path:
        return self.root / "boot" / f"vmlinuz-{self.release}"

    @property
    def modules(self) -> Path:
        return self.root / "lib/modules" / self.release


def find_kernel(root: Path) -> Kernel:
    """Find the one kernel in an unpacked tree; raises BuildError if there is none or several."""
    releases = [folder.name for folder in (root / "lib/modules").glob("*")]
    if len(releases) != 1:
        raise BuildError(f"one kernel expected, found {releases}")
    return Kernel(releases[0], root)


def assemble(debs: Path, root: Path) -> None:
    """Fill the folder root with the guest's files, taken from the unpacked packages in debs."""
    for name in FOLDERS:
        (root / name).mkdir(parents=True)
    shutil.copytree(HERE / "rootfs", root, symlinks=True, dirs_exist_ok=True)
    _copy(HERE / "init.sh", root / "init")
    (root / "var/run").symlink_to("/run")
    _add_ram_disk(root)
    _add_busybox(debs, root)
    _add_agent(debs, root)
    _add_modules(find_kernel(debs), debs / "bin/busybox", root)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def _add_ram_disk(root: Path) -> None:
    image = root / "data.ext4"
    make_data_filesystem(image, size_mib=RAM_DISK_MIB)
    image.with_name("data.ext4.gz").write_bytes(gzip.compress(image.read_bytes(), mtime=0))
    image.unlink()


def _add_busybox(debs: Path, root: Path) -> None:
    busybox = debs / "bin/busybox"
    _copy(busybox, root / "bin/busybox")
    for applet in run(busybox, "--list-full").split():
        link = root / applet
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.exists() and not link.is_symlink():
            link.symlink_to("/bin/busybox")


def _add_agent(debs: Path, root: Path) -> None:
    """Add qemu-ga and the shared libraries that the packages' own loader finds for it."""
    agent, loader = debs / "usr/sbin/qemu-ga", debs / "lib64/ld-linux-x86-64.so.2"
    folders = [debs / prefix / "x86_64-linux-gnu" for prefix in ("lib", "usr/lib")]
    listing = run(loader, "--library-path", ":".join(map(str, folders)), "--list", agent)
    for name, found in re.findall(r"^\t(lib\S+) => (.+?)(?: \(0x\w+\))?$", listing, re.M):
        if Path(found).parent not in folders:
            raise BuildError(f"no package provides {name} for qemu-ga")
        _copy(Path(found), root / "lib/x86_64-linux-gnu" / name)
    _copy(loader.resolve(), root / "lib64/ld-linux-x86-64.so.2")
    _copy(agent, root / "usr/sbin/qemu-ga")


def _add_modules(kernel: Kernel, busybox: Path, root: Path) -> None:
    """Add the modules listed in MODULES and what they depend on, and an index for modprobe."""
    run(busybox, "depmod", "-b", kernel.root, kernel.release)
    target = root / "lib/modules" / kernel.release
    for name in _with_dependencies(kernel):
        _copy(kernel.modules / name, target / name)
    for name in ("modules.builtin", "modules.order"):
        _copy(kernel.modules / name, target / name)
    run(busybox, "depmod", "-b", root, kernel.release)


def _with_dependencies(kernel: Kernel) -> set[str]:
    index = (kernel.modules / "modules.dep").read_text()
    needs = {
        path: dependencies.split()
        for path, dependencies in (line.split(":") for line in index.splitlines())
    }
    path_of = {Path(path).stem.replace("-", "_"): path for path in needs}
    names = re.sub(r"^#.*", "", MODULES.read_text(), flags=re.M).split()
    wanted = [path_of[name] for name in names if name in path_of]
    return {path for name in wanted for path in (name, *needs[name])}


def pack(root: Path, archive: Path) -> None:
    """Write the tree below root as an uncompressed newc archive, all owned by root."""
    with archive.open("wb") as out:
        for number, entry in enumerate(_entries(root)):
            out.write(_member(number, *entry))
        out.write(_member(0, "TRAILER!!!", 0, b""))


def _entries(root: Path) -> Iterator[tuple[str, int, bytes]]:
    """Yield name, mode and content of every file, folders before what they hold."""
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if path.is_symlink():
            yield name, stat.S_IFLNK | 0o777, str(path.readlink()).encode()
        elif path.is_dir():
            yield name, stat.S_IFDIR | 0o755, b""
        else:
            content = path.read_bytes()
            yield name, stat.S_IFREG | _permissions(name, content), content
    yield "dev/console", stat.S_IFCHR | 0o600, b""


def _permissions(name: str, content: bytes) -> int:
    if name == "etc/shadow":
        return 0o600
    return 0o755 if content.startswith((b"#!", b"\x7fELF")) else 0o644


def _member(number: int, name: str, mode: int, content: bytes) -> bytes:
    device = (5, 1) if stat.S_ISCHR(mode) else (0, 0)
    path = name.encode() + b"\0"
    fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, *device, len(path), 0)
    header = b"070701" + b"".join(b"%08x" % field for field in fields)
    return _padded(header + path) + _padded(content)


def _padded(block: bytes) -> bytes:
    return block + bytes(-len(block) % 4)
