"""SQLite files that must not lose anything: synced at every commit, never silently begun anew."""

import contextlib
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from backends.durable_files import sync_folder
from service import wal


class DatabaseFileError(Exception):
    """The file cannot be used; the message says why, and what to do."""


def open_database(
    path: Path, *, schema: str, what: str, loses: str, changes: Sequence[str] = ()
) -> sqlite3.Connection:
    """Opens a file, or makes it with `schema`; any thread may use it, one at a time.

    `changes` are the statements that make an older file one of `schema`: the first those
    from version 1 to 2, the last those to the present version. `what` is its name for
    people, `loses` what is lost where it is made anew. Raises DatabaseFileError where it is
    damaged or of a newer schema.
    """
    version = len(changes) + 1
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
        _prepare(connection, changes=changes, what=what)
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


def _prepare(connection: sqlite3.Connection, *, changes: Sequence[str], what: str) -> None:
    (found,) = connection.execute("PRAGMA user_version").fetchone()
    if found > len(changes) + 1:
        raise DatabaseFileError(
            f"the {what} is of schema {found}, newer than {len(changes) + 1}, the newest that"
            " this virtrpcd knows: run the one that wrote it, or a later one"
        )
    (sound,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if sound != "ok" or not found:
        raise sqlite3.DatabaseError(sound if found else "it has lost its schema")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    for number, change in enumerate(changes[found - 1 :], start=found + 1):
        # All of a change and its number at once: a crash leaves the old schema or the new one.
        connection.executescript(f"BEGIN; {change} PRAGMA user_version = {number}; COMMIT")
