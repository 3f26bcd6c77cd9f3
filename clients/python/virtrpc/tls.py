"""What a client shows and trusts where a daemon is spoken to by TLS, from PEM files."""

from __future__ import annotations

import os
from pathlib import Path

import grpc


def tls_credentials(
    *,
    ca: str | os.PathLike[str] | None = None,
    cert: str | os.PathLike[str] | None = None,
    key: str | os.PathLike[str] | None = None,
) -> grpc.ChannelCredentials:
    """For `grpcs://` addresses: `Client("grpcs://host:50052", credentials=tls_credentials(…))`.

    `ca`: the authorities that sign the certificates of daemons; None: the
    system's. `cert`, with its chain, and its `key`: who calls, which daemons
    demand. Raises OSError where a file cannot be read, ValueError where one of
    the two is given alone.
    """
    if (cert is None) != (key is None):
        raise ValueError("a certificate and its key are given together")
    return grpc.ssl_channel_credentials(_content(ca), _content(key), _content(cert))


def _content(path: str | os.PathLike[str] | None) -> bytes | None:
    return None if path is None else Path(path).read_bytes()
