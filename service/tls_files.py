"""Where the daemon's certificate is. Knows no grpc: settings are read before that is imported."""

from dataclasses import dataclass
from pathlib import Path

Stamp = tuple[tuple[int, int, int], ...]


class TlsFilesError(Exception):
    """The files cannot be used; the message says which and why."""


@dataclass(frozen=True)
class TlsFiles:
    """PEM files: a certificate with the chain to its authority, its key, and the authorities."""

    cert: Path
    key: Path
    ca: Path
    """Who signs the certificates of clients, and of other hosts' daemons."""

    def stamp(self) -> Stamp:
        """Changes whenever a file is written or replaced. Raises TlsFilesError."""
        try:
            facts = [path.stat() for path in (self.cert, self.key, self.ca)]
        except OSError as error:
            raise TlsFilesError(f"{error.filename}: {error.strerror}") from error
        return tuple((fact.st_ino, fact.st_size, fact.st_mtime_ns) for fact in facts)

    def read(self) -> tuple[bytes, bytes, bytes]:
        """Certificate, key, authorities. Raises TlsFilesError."""
        try:
            return self.cert.read_bytes(), self.key.read_bytes(), self.ca.read_bytes()
        except OSError as error:
            raise TlsFilesError(f"{error.filename}: {error.strerror}") from error
