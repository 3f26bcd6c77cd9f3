"""What a run has left on the host: processes and files."""

import re
from collections.abc import Iterator

import psutil

from deploy.demo.place import Place

_INSTANCE_ID = re.compile("[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}")


def residue(place: Place) -> list[str]:
    """One line for each process and file that should be gone; call when the daemon has ended."""
    return [*_processes(str(place.state_dir)), *_files(place)]


def _processes(mark: str) -> Iterator[str]:
    for process in psutil.process_iter(["pid", "name", "cmdline"]):
        if mark in " ".join(process.info["cmdline"] or ()):
            yield f"process {process.info['pid']}, {process.info['name']}"


def _files(place: Place) -> Iterator[str]:
    """Whatever is named after an instance."""
    yield from (str(path) for path in place.folder.rglob("*") if _INSTANCE_ID.search(path.name))
