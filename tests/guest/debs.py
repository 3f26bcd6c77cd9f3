"""Fetch and unpack the Debian packages the test guest is made of.

Nothing is installed on the host: the packages are downloaded with apt, which
verifies them, and unpacked with dpkg-deb. Works as root and as any user who
can read apt's package lists.
"""

import hashlib
import os
import re
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

# As root, apt would hand the download to its user _apt, who cannot write here.
APT_OPTIONS = ("-qq", "-o", "APT::Sandbox::User=root")
URI_LINE = re.compile(r"^'[^']+' (?P<file>\S+) \d+ (?P<algorithm>\w+):(?P<digest>\w+)$", re.M)


class BuildError(Exception):
    """The guest cannot be built; the message says why, in one line."""


@dataclass(frozen=True, order=True)
class Deb:
    """A package file: its name in the cache, and its digest from the signed package list."""

    file: str
    algorithm: str
    digest: str


def run(*command: str | Path, cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    """Run a command and return its standard output; raises BuildError with its last error line."""
    environment = {**os.environ, "LC_ALL": "C", **(env or {})}
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        reason = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["no message"]
        raise BuildError(f"{command[0]} failed: {reason[0]}")
    return done.stdout


def resolve(kernel: str, roots: Iterable[str]) -> list[Deb]:
    """Find the newest packages for a kernel meta package and for roots with their dependencies.

    The kernel's own dependencies, made for installing it, are left out.
    """
    image = _dependencies(kernel)
    names = {name for name in image if name.startswith("linux-image-")}
    if not names:
        raise BuildError(f"no package for {kernel} (apt-get update?)")
    names |= set(_dependencies("--recurse", *roots)) | set(roots)
    uris = run("apt-get", *APT_OPTIONS, "--print-uris", "download", *sorted(names))
    debs = sorted(Deb(**match.groupdict()) for match in URI_LINE.finditer(uris))
    if len(debs) != len(names):
        raise BuildError(f"apt announces {len(debs)} of {len(names)} packages with their digests")
    return debs


def _dependencies(*arguments: str) -> list[str]:
    listing = run("apt-cache", "depends", "--important", "--no-pre-depends", *arguments)
    return re.findall(r"^ +Depends: ([^<\s]+)$", listing, re.M)


def fetch(debs: Iterable[Deb], cache: Path) -> list[Path]:
    """Return the package files, downloading those that the cache lacks or has damaged."""
    debs = list(debs)
    cache.mkdir(parents=True, exist_ok=True)
    missing = [deb for deb in debs if not _is_intact(cache / deb.file, deb)]
    if missing:
        _download(missing, cache)
    return [cache / deb.file for deb in debs]


def _download(debs: list[Deb], cache: Path) -> None:
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        wanted = [_name_and_version(deb) for deb in debs]
        run("apt-get", *APT_OPTIONS, "download", *wanted, cwd=Path(folder))
        for deb in debs:
            if not _is_intact(Path(folder, deb.file), deb):
                raise BuildError(f"apt-get did not download {deb.file} as announced")
            Path(folder, deb.file).replace(cache / deb.file)


def _name_and_version(deb: Deb) -> str:
    name, version, _ = deb.file.split("_")
    return f"{name}={version.replace('%3a', ':')}"


def _is_intact(file: Path, deb: Deb) -> bool:
    if not file.exists():
        return False
    return hashlib.new(deb.algorithm.lower(), file.read_bytes()).hexdigest() == deb.digest


def unpack(files: Iterable[Path], folder: Path) -> None:
    """Unpack package files into one tree, as if it were the root of an installed system."""
    for file in files:
        run("dpkg-deb", "-x", file, folder)
