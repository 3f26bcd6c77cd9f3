"""`virtrpcd` within what the systemd unit leaves it: its capabilities, and where it may write.

    unshare --mount python -m tests.deploy.confined [flags of virtrpcd]

Only what needs no systemd is as in the unit; syscalls and devices are not confined.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

UNIT = Path(__file__).resolve().parents[2] / "deploy" / "systemd" / "virtrpcd.service"
PROGRAM = ("unshare", "--mount", sys.executable, "-m", "tests.deploy.confined")


def words(key: str) -> list[str]:
    """All values of a key of the unit."""
    lines = UNIT.read_text(encoding="utf-8").splitlines()
    values = [line.partition("=")[2] for line in lines if line.startswith(f"{key}=")]
    return " ".join(values).split()


def writable() -> Iterator[Path]:
    """Where the unit lets it write, beside its state, which is below /tmp in tests."""
    yield Path("/tmp")
    yield from (Path("/run", name) for name in words("RuntimeDirectory"))
    yield from (Path(path.removeprefix("-")) for path in words("ReadWritePaths"))


def main() -> None:
    """Becomes the daemon."""
    for path in filter(Path.is_dir, writable()):
        subprocess.run(["mount", "--bind", path, path], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", "/"], check=True)
    kept = (f"+{name.removeprefix('CAP_').lower()}" for name in words("CapabilityBoundingSet"))
    options = ["--no-new-privs", f"--bounding-set={','.join(('-all', *kept))}"]
    daemon = [sys.executable, "-m", "service.main", *sys.argv[1:]]
    os.execvp("setpriv", ["setpriv", *options, *daemon])  # noqa: S606 - a shell has no part in it


if __name__ == "__main__":
    main()
