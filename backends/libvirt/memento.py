"""An instance as it was before it was made anew: its definition and the files of its disks.

    FOLDER/before/domain.xml      its definition, secrets included; empty: it had none
    FOLDER/before/root.qcow2 …    other names of the same files, which cost no room

It is there whole or not at all, and while it is there the instance can be put back.
"""

import errno
import os
import shutil
from pathlib import Path

from backends.durable_files import sync_folder
from backends.errors import NoRoomError
from backends.libvirt.own_disks import own_files

_DEFINITION = "domain.xml"


class Memento:
    """The memento of the instance whose folder this is."""

    def __init__(self, folder: Path, name: str = "before") -> None:
        self._folder = folder
        self._path = folder / name
        self._fresh = folder / f"{name}.new"

    def take(self, definition: str) -> None:
        """Remembers the files that there are, and this definition; raises NoRoomError."""
        self.forget()
        try:
            self._write(definition)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise NoRoomError("the filesystem of the instances is full") from error
        self._fresh.rename(self._path)
        sync_folder(self._folder)

    def put_back(self) -> str | None:
        """Makes the files what they were and gives the definition; None where there is no memento.

        The memento stays, so that it can be done again until it is forgotten.
        """
        self._remove_fresh()
        if not self._path.exists():
            return None
        remembered = {path.name: path for path in own_files(self._path)}
        for path in own_files(self._folder):
            if path.name not in remembered:
                path.unlink()
        for name, path in remembered.items():
            _put(path, self._folder / name)
        return (self._path / _DEFINITION).read_text(encoding="utf-8")

    def definition(self) -> str | None:
        """The definition alone; None where there is no memento."""
        path = self._path / _DEFINITION
        return path.read_text(encoding="utf-8") if path.exists() else None

    def forget(self) -> None:
        """What was is gone for good; nothing where there is no memento."""
        self._remove_fresh()
        if self._path.exists():
            # A part of it must never be taken for the whole.
            self._path.rename(self._fresh)
            self._remove_fresh()

    def _remove_fresh(self) -> None:
        if self._fresh.exists():
            shutil.rmtree(self._fresh)

    def _write(self, definition: str) -> None:
        self._fresh.mkdir(mode=0o700)
        for path in own_files(self._folder):
            os.link(path, self._fresh / path.name)
        with (self._fresh / _DEFINITION).open("w", encoding="utf-8") as file:
            file.write(definition)
            file.flush()
            os.fsync(file.fileno())


def _put(source: Path, target: Path) -> None:
    """Makes a name mean the file of another name, at once."""
    if target.exists() and target.samefile(source):
        return  # rename(2) would leave both names
    beside = target.with_name(f"{target.name}.back")
    beside.unlink(missing_ok=True)
    beside.hardlink_to(source)
    beside.rename(target)
