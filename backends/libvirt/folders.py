"""Where the files of instances are: one folder each, below the state directory."""

import contextlib
import shutil
from pathlib import Path

from backends.console_log import ConsoleLog
from backends.errors import InstanceNotFoundError


class InstanceFolders:
    """Folders by instance id. QEMU, another user, passes through them to its files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(mode=0o711, parents=True, exist_ok=True)

    def of(self, instance_id: str) -> Path:
        """The folder of an instance, whether or not it exists."""
        return self.folder / instance_id

    def make(self, instance_id: str) -> Path:
        """The folder of an instance, made if need be."""
        folder = self.of(instance_id)
        folder.mkdir(mode=0o711, exist_ok=True)
        return folder

    def remove(self, instance_id: str) -> list[str]:
        """Removes the folder and all in it; gives what was removed."""
        folder = self.of(instance_id)
        removed = [str(path) for path in sorted(folder.glob("*"))]
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(folder)
        return removed

    def console_log(self, instance_id: str) -> ConsoleLog:
        """The console log of an instance; raises InstanceNotFoundError."""
        log = ConsoleLog.found_in(self.of(instance_id))
        if log is None:
            raise InstanceNotFoundError(instance_id)
        return log
