"""SQLite files that must not lose anything: synced at every commit, never silently begun anew."""

import contextlib
import sqlite3
from pathlib import Path

from backends.durable_files import sync_folder
from service import wal


class DatabaseFileError(Exception):
    """The file cannot be used; the message says why, and what to do."""


def open_database(
    path: Path, *, schema: str, version: int, what: str, loses: str
) -> sqlite3.Connection:
    """Opens a file, or makes it with `schema`; any thread may use it, one at a time.

    `what` is its name for people, `loses` what is lost where it is made anew. Raises
    DatabaseFileError where it is damaged or of a newer schema.
    """
    if not path.exists():
        _make(path, f"BEGIN; {schema} PRAGMA user_version = {version}; COMMIT")
    remedy = f"restore it, or move it and what is beside it away to begin a new one ({loses})"
    # Before SQLite opens the file: it would drop what is behind the damage for good.
    if wal.is_damaged(path.with_name(f"{path.name}-wal")):
        raise DatabaseFileError(
            f"{path} is not a sound {what} (its write-ahead log is damaged); {remedy}"
        )
    connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
    try:
        _prepare(connection, version=version, what=what)
    except (sqlite3.DatabaseError, ValueError) as error:
        connection.close()
        raise DatabaseFileError(f"{path} is not a sound {what} ({error}); {remedy}") from error
    except DatabaseFileError:
        connection.close()
        raise
    return connection


def _make(path: Path, script: str) -> None:
    """Makes an empty file, whole or not at all: one without a schema is a damaged one."""
    fresh = path.with_name(f"{path.name}.new")
    fresh.unlink(missing_ok=True)
    with contextlib.closing(sqlite3.connect(fresh, isolation_level=None)) as connection:
        fresh.chmod(0o600)
        connection.executescript(script)
    fresh.rename(path)
    sync_folder(path.parent)


def _prepare(connection: sqlite3.Connection, *, version: int, what: str) -> None:
    (found,) = connection.execute("PRAGMA user_version").fetchone()
    if found > version:
        raise DatabaseFileError(f"the {what} is of schema {found}, newer than {version}")
    (sound,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if sound != "ok" or not found:
        raise sqlite3.DatabaseError(sound if found else "it has lost its schema")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
