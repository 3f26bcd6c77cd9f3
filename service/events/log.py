"""The event log on disk: the last events, by sequence, so that cursors outlive the daemon.

An event is written before any watcher sees it, so a killed daemon never gives
a number twice. Commits are not synced (SQLite WAL, `synchronous=NORMAL`): what
only a power cut could lose is covered by the epoch, which changes with every
boot of the host.
"""

import sqlite3
import uuid
from collections.abc import Sequence
from pathlib import Path

RETAINED_EVENTS = 65_536
_IN_MEMORY = ":memory:"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_SCHEMA = """
CREATE TABLE IF NOT EXISTS events (sequence INTEGER PRIMARY KEY, event BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS log (epoch TEXT NOT NULL, boot_id TEXT NOT NULL);
"""


class EventLog:
    """Appends and reads serialised events. Calls are serialised by the caller's one thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection = _open(path)
        self.epoch = self._epoch()
        self.last_sequence = self._last_sequence()

    def close(self) -> None:
        """Closes the file."""
        self._connection.close()

    def begin_anew(self) -> None:
        """An empty log under another epoch; in memory, where even that cannot be written."""
        self._connection.close()
        try:
            _remove(self._path)
            self._connection = _connect(str(self._path))
            self.epoch = self._epoch()
        except (OSError, sqlite3.Error):
            self._connection = _connect(_IN_MEMORY)
            self.epoch = self._epoch()

    def append(self, events: Sequence[tuple[int, bytes]]) -> None:
        """Writes events with their sequences, and forgets those beyond the retention."""
        with self._connection:
            self._connection.executemany("INSERT INTO events VALUES (?, ?)", events)
            self._connection.execute(
                "DELETE FROM events WHERE sequence <= ?", (events[-1][0] - RETAINED_EVENTS,)
            )

    def oldest(self) -> int:
        """Sequence of the oldest event kept; one after the last where there is none."""
        (oldest,) = self._connection.execute("SELECT min(sequence) FROM events").fetchone()
        return self._last_sequence() + 1 if oldest is None else int(oldest)

    def read(self, *, after: int, limit: int) -> list[tuple[int, bytes]]:
        """Events that follow a sequence, in order."""
        return self._connection.execute(
            "SELECT sequence, event FROM events WHERE sequence > ? ORDER BY sequence LIMIT ?",
            (after, limit),
        ).fetchall()

    def _last_sequence(self) -> int:
        (last,) = self._connection.execute("SELECT max(sequence) FROM events").fetchone()
        return last or 0

    def _epoch(self) -> str:
        boot_id = _BOOT_ID.read_text(encoding="ascii").strip()
        row = self._connection.execute("SELECT epoch, boot_id FROM log").fetchone()
        if row is not None and row[1] == boot_id:
            return str(row[0])
        epoch = uuid.uuid4().hex
        with self._connection:
            self._connection.execute("DELETE FROM log")
            self._connection.execute("DELETE FROM events")
            self._connection.execute("INSERT INTO log VALUES (?, ?)", (epoch, boot_id))
        return epoch


def _open(path: Path) -> sqlite3.Connection:
    """Opens the log; one that is damaged begins anew, under a new epoch, which watchers see.

    On a full disk that is in memory: the daemon has to start there too.
    """
    try:
        return _connect(str(path))
    except sqlite3.DatabaseError:
        path.rename(path.with_suffix(".damaged"))
    try:
        _remove(path)
        return _connect(str(path))
    except (OSError, sqlite3.Error):
        _remove(path)
        return _connect(_IN_MEMORY)


def _remove(path: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)


def _connect(address: str) -> sqlite3.Connection:
    if address != _IN_MEMORY:
        # Files that SQLite makes beside it get the mode that this one has by then.
        path = Path(address)
        path.touch(mode=0o600)
        path.chmod(0o600)
    connection = sqlite3.connect(address, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.executescript(_SCHEMA)
        (sound,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if sound != "ok":
            raise sqlite3.DatabaseError(sound)
    except sqlite3.Error:
        connection.close()
        raise
    return connection
