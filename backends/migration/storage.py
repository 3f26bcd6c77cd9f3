"""Do two hosts see the same directory? A file that the one writes is looked for by the other.

Filesystems lie: the same path, and even the same server, may be another directory. A host
therefore keeps a mark, a file of a random name, where instances have their directories;
and on demand writes one of random content into an instance's own.
"""

import contextlib
import glob
import os
import secrets
import time
import uuid
from pathlib import Path

from virtrpc.v1 import migration_pb2 as pb

from backends.contract import SharedStorage
from backends.errors import UnreachableError
from backends.work import Undo, Work

_HOST_MARK = ".virtrpc-host-"
_MARK = ".virtrpc-shared-"
_OLDEST_S = 3600.0


class StorageMark:
    """The mark of this host, there for as long as its daemon runs.

    `memory` is a file in which its name is kept, so that one that was left behind by a
    killed daemon is removed by the next.
    """

    def __init__(self, folder: Path, memory: Path) -> None:
        self._folder = folder
        self._memory = memory
        self.name = ""

    def place(self) -> None:
        """Writes it; raises OSError."""
        with contextlib.suppress(FileNotFoundError):
            self.name = self._memory.read_text(encoding="ascii")
            self.remove()
        self.name = f"{_HOST_MARK}{uuid.uuid4().hex}"
        self._memory.write_text(self.name, encoding="ascii")
        (self._folder / self.name).touch(mode=0o600)

    def remove(self) -> None:
        """Takes it away."""
        if not self.name.startswith(_HOST_MARK):
            return
        with contextlib.suppress(OSError):
            (self._folder / self.name).unlink(missing_ok=True)

    def sees(self, other: str) -> bool:
        """Whether another host's mark is here too."""
        return other.startswith(_HOST_MARK) and (self._folder / other).exists()


class StorageChecks(SharedStorage):
    """The verbs, on the directories of instances."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.undo = {"remove_mark": remove_mark}

    def check_shared_storage_local(
        self, request: pb.CheckSharedStorageLocalRequest, work: Work
    ) -> pb.CheckSharedStorageLocalResponse:
        """See SharedStorage."""
        folder = self._folder / request.instance_id.lower()
        work.ready()
        remove_old_marks(self._folder, now_s=time.time())
        if not folder.is_dir():
            return pb.CheckSharedStorageLocalResponse()
        mark = _find(folder)
        if mark is None:
            mark = pb.SharedStorageMark(
                file_name=f"{_MARK}{uuid.uuid4().hex}", content=secrets.token_urlsafe(24)
            )
            path = folder / mark.file_name
            work.step("mark", Undo("remove_mark", {"path": str(path)}))
            _write(path, mark.content)
        return pb.CheckSharedStorageLocalResponse(mark=mark)

    def check_shared_storage_remote(
        self, request: pb.CheckSharedStorageRemoteRequest
    ) -> pb.CheckSharedStorageRemoteResponse:
        """See SharedStorage."""
        found = _content(self._folder / request.instance_id.lower() / request.mark.file_name)
        return pb.CheckSharedStorageRemoteResponse(
            shared=found is not None and secrets.compare_digest(found, request.mark.content)
        )

    def cleanup_shared_storage_check(
        self, request: pb.CleanupSharedStorageCheckRequest, work: Work
    ) -> pb.CleanupSharedStorageCheckResponse:
        """See SharedStorage."""
        path = self._folder / request.instance_id.lower() / request.mark.file_name
        is_mark = _content(path) == request.mark.content
        work.ready()
        if is_mark:
            work.step("unmark")
            remove_mark(str(path))
        return pb.CleanupSharedStorageCheckResponse(already_clean=not is_mark)


def remove_mark(path: str) -> None:
    """Removes a mark; nothing where it is gone, or the path is none's."""
    if Path(path).name.startswith(_MARK):
        Path(path).unlink(missing_ok=True)


def remove_old_marks(folder: Path, *, now_s: float) -> None:
    """Removes the marks that nobody has for an hour."""
    # Unlike Path.glob it bears folders that go meanwhile.
    found = glob.iglob(f"{glob.escape(str(folder))}/*/{_MARK}*")  # noqa: PTH207
    for path in map(Path, found):
        with contextlib.suppress(FileNotFoundError):
            if now_s - path.stat().st_mtime > _OLDEST_S:
                path.unlink()


def _find(folder: Path) -> pb.SharedStorageMark | None:
    """The mark of an earlier call."""
    for path in sorted(folder.glob(f"{_MARK}*")):
        content = _content(path)
        if content:
            return pb.SharedStorageMark(file_name=path.name, content=content)
    return None


def _content(path: Path) -> str | None:
    """What a mark holds; None where there is none."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        return file.read(256).decode("ascii", "replace")


def _write(path: Path, content: str) -> None:
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with os.fdopen(os.open(path, flags, 0o600), "w", encoding="ascii") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise UnreachableError(
            f"the instance's directory cannot be written: {error.strerror}",
            reason="STORAGE_UNREACHABLE",
        ) from error
