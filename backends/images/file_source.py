"""Images from files of this host, below the directories that the configuration names."""

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from virtrpc.v1.image_pb2 import ImageFileSource

from backends.errors import ContractError
from backends.host_paths import OutsideError, open_below
from backends.images.refusals import (
    source_denied,
    source_not_allowed,
    source_not_found,
    source_unreachable,
)

FIELD = "file.path"
_READ_BYTES = 1 << 20
_NOT_THERE = (errno.ENOENT, errno.ENOTDIR)
_MISLEADING = (errno.ELOOP, errno.ENXIO, errno.ENAMETOOLONG, errno.EINVAL)


class FileSource:
    """A file that was asked for."""

    def __init__(self, source: ImageFileSource, allowed: Sequence[Path]) -> None:
        self.size_bytes = 0
        self._path = source.path
        self._allowed = allowed
        self._file: IO[bytes] | None = None

    def check(self) -> None:
        """Opens it; raises the errors of PullImage."""
        self._file = _open(self._path, self._allowed)
        self.size_bytes = os.fstat(self._file.fileno()).st_size

    def begin(self) -> None:
        """It is open and its size known since the check."""

    def chunks(self) -> Iterator[bytes]:
        """Its bytes, in order."""
        assert self._file is not None  # noqa: S101 - check() was called
        try:
            while chunk := self._file.read(_READ_BYTES):
                yield chunk
        except OSError as error:
            raise source_unreachable(f"the file cannot be read: {error.strerror}") from error

    def close(self) -> None:
        """Lets go of it."""
        if self._file is not None:
            self._file.close()


def _open(path: str, allowed: Sequence[Path]) -> IO[bytes]:
    try:
        descriptor = open_below(path, allowed)
    except OutsideError as error:
        raise _outside() from error
    except OSError as error:
        raise _refused(error) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise source_not_allowed("the path is not that of a regular file", field=FIELD)
    return os.fdopen(descriptor, "rb")


def _outside() -> ContractError:
    return source_not_allowed(
        "the path is not below a directory that images may be read from (--image-source-dir)",
        field=FIELD,
    )


def _refused(error: OSError) -> ContractError:
    if error.errno in _NOT_THERE:
        return source_not_found("there is no such file", field=FIELD)
    if error.errno in _MISLEADING:
        return source_not_allowed("the path does not lead to a regular file", field=FIELD)
    return source_denied(f"the file cannot be opened: {error.strerror}", field=FIELD)
