"""Recordings of attachments, for audit: asciicast v2, which players of terminals read.

Source: https://docs.asciinema.org/manual/asciicast/v2/. A recording is a line of
JSON with the window's size and the start, then a line for each event: seconds
since then, "o" (shown), "i" (typed), "r" (resized) or "m" (a mark), and its text.
"""

import codecs
import json
import os
import time
import uuid
from io import FileIO
from pathlib import Path

from virtrpc.v1.console_pb2 import ConsoleSize

from backends.errors import NoRoomError

DEFAULT_MAX_AGE_S = 30 * 24 * 3600.0
DEFAULT_MAX_BYTES = 64 << 20
_DEFAULT_SIZE = ConsoleSize(columns=80, rows=24)
_SUFFIX = ".cast"


class Recording:
    """One recording. What is shown is recorded up to its bound, what is typed always."""

    def __init__(self, file: FileIO, name: str, *, max_bytes: int) -> None:
        self.name = name
        self._file = file
        self._left = max_bytes
        self._began = time.monotonic()
        self._decoders = {
            kind: codecs.getincrementaldecoder("utf-8")(errors="replace") for kind in "io"
        }

    def shown(self, data: bytes) -> None:
        """Output that the client was sent."""
        if self._left <= 0:
            return
        self._left -= self._event("o", self._decoders["o"].decode(data))
        if self._left <= 0:
            self._event("m", "output is not recorded from here on: the recording is too long")

    def typed(self, data: bytes) -> None:
        """Input that came from the client."""
        self._event("i", self._decoders["i"].decode(data))

    def resized(self, size: ConsoleSize) -> None:
        """The client's window has another size."""
        self._event("r", f"{size.columns}x{size.rows}")

    def close(self) -> None:
        """The attachment has ended."""
        self._file.close()

    def _event(self, kind: str, text: str) -> int:
        """Gives how many bytes it takes in the file: escapes are longer than what they say."""
        if not text:
            return 0
        return _write(self._file, [round(time.monotonic() - self._began, 6), kind, text])


class Recordings:
    """The directory of recordings, which nobody but the daemon's user reads."""

    def __init__(self, folder: Path, *, max_age_s: float, max_bytes: int) -> None:
        """`max_age_s`: how long they are kept; `max_bytes`: most output in one of them."""
        self._folder = folder
        self._max_age_s = max_age_s
        self._max_bytes = max_bytes

    def new(self, instance_id: str, identity: str, size: ConsoleSize | None) -> Recording:
        """Begins a recording; raises NoRoomError where it cannot be written."""
        began = int(time.time())
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(began))
        name = f"{stamp}-{instance_id}-{uuid.uuid4().hex[:8]}{_SUFFIX}"
        window = size or _DEFAULT_SIZE
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            descriptor = os.open(self._folder / name, flags, 0o600)
        except OSError as error:
            raise _unwritable(error) from error
        # Without a buffer: what a full disk did not take is not tried again at the end.
        file = FileIO(descriptor, "wb")
        head = {"version": 2, "width": window.columns, "height": window.rows, "timestamp": began}
        try:
            _write(file, head | {"title": f"{instance_id} by {identity}"})
        except NoRoomError:
            file.close()
            (self._folder / name).unlink(missing_ok=True)
            raise
        return Recording(file, name, max_bytes=self._max_bytes)

    def remove_old(self) -> None:
        """Removes what was last written longer ago than recordings are kept."""
        oldest = time.time() - self._max_age_s
        for path in self._folder.glob(f"*{_SUFFIX}"):
            if path.stat().st_mtime < oldest:
                path.unlink(missing_ok=True)


def _write(file: FileIO, value: object) -> int:
    line = json.dumps(value).encode("ascii") + b"\n"
    left = memoryview(line)
    try:
        while left:
            left = left[file.write(left) :]
    except OSError as error:
        raise _unwritable(error) from error
    return len(line)


def _unwritable(error: OSError) -> NoRoomError:
    return NoRoomError(
        f"the recording cannot be written: {error.strerror}", reason="RECORDING_UNWRITABLE"
    )
