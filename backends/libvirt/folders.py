"""Where the files of instances are: one folder each, below the state directory."""

import contextlib
import shutil
from pathlib import Path

from backends.console_log import ConsoleLog
from backends.durable_files import write_durably
from backends.errors import InstanceNotFoundError

_OWNER = ".owner"
_NOBODY = "nobody's yet"


class InstanceFolders:
    """Folders by instance id. QEMU, another user, passes through them to its files.

    Hosts may see the same folders. Each has an owner, the host that the instance is on: no
    other one removes it. `host_id` is this one's; empty: it owns them all.
    """

    def __init__(self, folder: Path, *, host_id: str = "") -> None:
        self.folder = folder
        self._host_id = host_id
        folder.mkdir(mode=0o711, parents=True, exist_ok=True)

    def of(self, instance_id: str) -> Path:
        """The folder of an instance, whether or not it exists."""
        return self.folder / instance_id

    def make(self, instance_id: str) -> Path:
        """The folder of an instance, made if need be."""
        folder = self.of(instance_id)
        folder.mkdir(mode=0o711, exist_ok=True)
        if self._host_id and not (folder / _OWNER).exists():
            self.own(instance_id)
        return folder

    def own(self, instance_id: str) -> None:
        """The instance is this host's from now on."""
        fresh = self.of(instance_id) / f"{_OWNER}.new"
        fresh.write_text(self._host_id, encoding="ascii")
        fresh.rename(fresh.with_name(_OWNER))

    def hand_over(self, instance_id: str) -> None:
        """The instance is another host's from now on, which makes it its own; nobody removes it."""
        if self.of(instance_id).exists():
            write_durably(self.of(instance_id) / _OWNER, _NOBODY)

    def is_foreign(self, instance_id: str) -> bool:
        """Whether the folder belongs to another host's instance."""
        try:
            owner = (self.of(instance_id) / _OWNER).read_text(encoding="ascii")
        except FileNotFoundError:
            return False
        return bool(self._host_id) and owner != self._host_id

    def remove(self, instance_id: str) -> list[str]:
        """Removes the folder and all in it; gives what was removed: nothing of another host's."""
        folder = self.of(instance_id)
        if self.is_foreign(instance_id):
            return []
        removed = [str(path) for path in sorted(folder.glob("[!.]*"))]
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(folder)
        return removed

    def console_log(self, instance_id: str) -> ConsoleLog:
        """The console log of an instance; raises InstanceNotFoundError."""
        log = ConsoleLog.found_in(self.of(instance_id))
        if log is None:
            raise InstanceNotFoundError(instance_id)
        return log
