"""The set-up: what it asks for, what it says where it cannot have it, and that it is done once."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SETUP = ROOT / "deploy" / "setup"
# Parts of every Debian system.
ESSENTIAL = {"apt", "dpkg"}
INSTALL = f"""
here={shlex.quote(str(SETUP))} profile=run
say() {{ echo "setup: $*"; }}
python_packages() {{ :; }}
logged() {{ echo "would run $*"; }}
. "$here/packages.sh"
install_packages
"""


def listed(name: str) -> set[str]:
    lines = (SETUP / name).read_text(encoding="utf-8").splitlines()
    return {line.split()[0] for line in lines if line[:1] != "#"}


@pytest.fixture
def bare_path(tmp_path: Path) -> Path:
    """A folder for PATH: a user who is not root, and nothing installed."""
    for name in ("grep", "tr"):
        (tmp_path / name).symlink_to(f"/usr/bin/{name}")
    program(tmp_path, "id", "echo 1000")
    return tmp_path


def program(folder: Path, name: str, body: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
    path.chmod(0o755)


def install(path: Path) -> list[str]:
    """Lines that the installation of packages says; it must not fail."""
    done = subprocess.run(
        ["/bin/bash", "-euo", "pipefail", "-c", INSTALL],
        env={"PATH": str(path)},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()


def test_the_guests_builder_finds_its_tools() -> None:
    builder = [sys.executable, "tests/guest/build.py", "--packages"]
    done = subprocess.run(builder, cwd=ROOT, capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) <= listed("packages-run.txt") | ESSENTIAL


def test_no_package_is_listed_twice() -> None:
    assert listed("packages-run.txt") & listed("packages-test.txt") == set()


def test_another_system_is_said_in_one_line(bare_path: Path) -> None:
    (line,) = install(bare_path)
    assert line.startswith("setup: cannot install ")
    assert " qemu-system-x86 " in line
    assert line.endswith(" (this is no Debian); without QEMU the fake backend serves")


def test_a_user_who_is_not_root_is_told_in_one_line(bare_path: Path) -> None:
    program(bare_path, "apt-get", "exit 1")
    (line,) = install(bare_path)
    assert "(that takes root)" in line


def test_nothing_is_said_where_nothing_is_missing(bare_path: Path) -> None:
    program(bare_path, "dpkg-query", "echo installed")
    assert install(bare_path) == []


def test_a_program_from_elsewhere_does_as_well(bare_path: Path) -> None:
    program(bare_path, "cc", "")
    (line,) = install(bare_path)
    assert " gcc " not in line
    assert " libc6-dev " in line


def test_a_second_set_up_has_nothing_to_do() -> None:
    environment = {key: value for key, value in os.environ.items() if key != "VIRTUAL_ENV"}
    for _ in range(2):
        done = subprocess.run(
            [SETUP / "prepare", "test"],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=True,
        )
    assert done.stderr == ""


@pytest.mark.parametrize("lock", ["protos/package-lock.json", "clients/node/package-lock.json"])
def test_lock_files_name_no_registry(lock: str) -> None:
    assert '"resolved"' not in (ROOT / lock).read_text(encoding="utf-8")
