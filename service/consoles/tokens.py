"""Tokens that open a console once. On disk there is only what proves them: a hash.

minted ──spent──▶ gone        expired, or its instance stopped, gone or restarted: gone
"""

import hashlib
import hmac
import secrets
import sqlite3
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import structlog
from virtrpc.v1.console_pb2 import ConsoleType

from backends.errors import PermissionRefusedError

_MOST_OF_AN_INSTANCE = 256
_NAME_BYTES, _SECRET_BYTES = 8, 32
_SCHEMA = """
CREATE TABLE IF NOT EXISTS token (
    name TEXT PRIMARY KEY, digest BLOB NOT NULL, instance_id TEXT NOT NULL, kind INTEGER NOT NULL,
    boot TEXT NOT NULL, caller TEXT NOT NULL, expires_at REAL NOT NULL
) WITHOUT ROWID
"""
_OLDEST = """
DELETE FROM token WHERE name IN (
    SELECT name FROM token WHERE instance_id = ? ORDER BY expires_at DESC LIMIT -1 OFFSET ?
)
"""
log = structlog.get_logger()


class TokenRefusedError(PermissionRefusedError):
    """A token that opens nothing; why is not told."""

    reason = "CONSOLE_TOKEN_REFUSED"

    def __init__(self) -> None:
        super().__init__("the token does not open this console: ask for a new one")


@dataclass(frozen=True, kw_only=True)
class Access:
    """What a token opens."""

    instance_id: str
    kind: "ConsoleType.ValueType"
    boot: str
    """Start of the machine that it is for, as backends.contract.ConsolePlace."""
    caller: str
    """Identity that asked for it."""


class Tokens:
    """All tokens that may still be used. Event loop only: a write is no disk sync."""

    def __init__(self, path: Path) -> None:
        try:
            self._database = _opened(path)
        except sqlite3.DatabaseError as error:
            # Whoever had a token asks for another.
            log.warning("tokens of consoles are lost: their file is damaged", reason=str(error))
            path.unlink()
            self._database = _opened(path)

    def close(self) -> None:
        """Lets go of the file."""
        self._database.close()

    def mint(self, access: Access, *, expires_at: float) -> str:
        """A new token, good until then (seconds since 1970); nobody can say it again."""
        name = secrets.token_urlsafe(_NAME_BYTES)
        secret = secrets.token_urlsafe(_SECRET_BYTES)
        self._database.execute("DELETE FROM token WHERE expires_at < ?", (time.time(),))
        self._database.execute(
            "INSERT INTO token VALUES (?, ?, ?, ?, ?, ?, ?)",
            (name, _digest(secret), access.instance_id, access.kind, access.boot, access.caller,
             expires_at),
        )  # fmt: skip
        self._database.execute(_OLDEST, (access.instance_id, _MOST_OF_AN_INSTANCE))
        return f"{name}.{secret}"

    def find(self, token: str) -> Access:
        """What a token opens; raises TokenRefusedError."""
        name, _, secret = token.partition(".")
        row = self._database.execute("SELECT * FROM token WHERE name = ?", (name,)).fetchone()
        # Compared even where there is nothing to compare with: it takes as long.
        digest = row[1] if row is not None else _digest("")
        proven = hmac.compare_digest(digest, _digest(secret))
        if row is None or not proven or row[6] < time.time():
            raise TokenRefusedError
        return Access(instance_id=row[2], kind=row[3], boot=row[4], caller=row[5])

    def spend(self, token: str) -> Access:
        """As `find`, and the token opens nothing any more."""
        access = self.find(token)
        self._database.execute("DELETE FROM token WHERE name = ?", (token.partition(".")[0],))
        return access

    def expire(self, token: str, *, at: float) -> None:
        """Gives a token that was not spent another end."""
        name = token.partition(".")[0]
        self._database.execute("UPDATE token SET expires_at = ? WHERE name = ?", (at, name))

    def revoke(self, instance_id: str) -> None:
        """Voids all tokens of an instance."""
        self._database.execute("DELETE FROM token WHERE instance_id = ?", (instance_id,))

    def instances(self) -> Iterable[str]:
        """Instances that there are tokens of."""
        rows = self._database.execute("SELECT DISTINCT instance_id FROM token")
        return [instance_id for (instance_id,) in rows.fetchall()]


def _opened(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, isolation_level=None)
    path.chmod(0o600)
    # They outlive the daemon; after a restart of the host they are void anyway.
    database.execute("PRAGMA synchronous=OFF")
    database.execute(_SCHEMA)
    database.execute("SELECT name, digest, expires_at FROM token").fetchall()
    return database


def _digest(secret: str) -> bytes:
    """A plain hash will do: the secret has 256 bits of its own."""
    return hashlib.sha256(secret.encode()).digest()
