"""Runs buf over the contract: lint, format, and breaking changes since the last release.

buf resolves imports inside one workspace and finds validate.proto on a registry
of its own; so a workspace is laid out of links to the contract and to the copy
of validate.proto that `generate.py` compiles with. Nothing is fetched.

    python protos/check.py lint
    python protos/check.py format    fails on a difference, and shows it
    python protos/check.py breaking  against the last tag; nothing to do without one
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml
from generate import PROTOS, ROOT, include_folder

BUF = PROTOS / "node_modules" / ".bin" / "buf"
CHECKS = {"lint": ("lint",), "format": ("format", "--diff", "--exit-code")}


def workspace(folder: Path, contract: Path) -> Path:
    """Makes `folder` a workspace of the contract and what it imports."""
    folder.mkdir()
    (folder / "contract").symlink_to(contract)
    (folder / "include").symlink_to(include_folder())
    settings = yaml.safe_load((PROTOS / "buf.yaml").read_text(encoding="utf-8"))
    settings["modules"] = [
        {"path": "contract"},
        {"path": "include", "lint": {"ignore": ["include"]}},
    ]
    (folder / "buf.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    return folder


def buf(*arguments: str, folder: Path) -> int:
    """Exit code of buf, run in a workspace."""
    return subprocess.run([str(BUF), *arguments], cwd=folder, check=False).returncode


def last_release() -> str:
    """The newest tag that this commit contains; empty where there is none."""
    command = ("git", "describe", "--tags", "--abbrev=0")
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return found.stdout.strip()


def released_contract(release: str, folder: Path) -> Path:
    """The contract as it was at a release, below `folder`."""
    command = ("git", "archive", release, "--", "protos/virtrpc")
    archive = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    subprocess.run(("tar", "-x"), cwd=folder, input=archive.stdout, check=True)
    return folder / "protos"


def breaking(current: Path) -> int:
    """Exit code of the comparison with the last release."""
    release = last_release()
    if not release:
        print("no release yet that the contract could break")
        return 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        released = workspace(folder / "workspace", released_contract(release, folder))
        return buf("breaking", "--against", str(released), folder=current)


def main() -> int:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("check", choices=(*CHECKS, "breaking"))
    check = parser.parse_args().check
    with tempfile.TemporaryDirectory() as folder:
        current = workspace(Path(folder) / "workspace", PROTOS)
        return breaking(current) if check == "breaking" else buf(*CHECKS[check], folder=current)


if __name__ == "__main__":
    sys.exit(main())
