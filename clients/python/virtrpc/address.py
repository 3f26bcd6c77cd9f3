"""Where a daemon is found: one notation for the daemon, its clients and people.

    unix:/run/virtrpc/virtrpc.sock      a Unix socket (`unix:///…` and a bare path too)
    host:50051, [2001:db8::7]:50051     TCP without TLS (`grpc://` may precede it)
    dns:///host:50051                   TCP, the name resolved anew at every connect
    grpcs://host:50051                  TCP with TLS

Imports neither grpc nor the stubs.
"""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass
from pathlib import Path

# sockaddr_un.sun_path holds 108 bytes with its final NUL (unix(7)).
SOCKET_PATH_BYTES = 107
SOCKET_NAME = "virtrpc.sock"


@dataclass(frozen=True)
class Address:
    """A place where a daemon listens.

    Either `socket_path` is set (a path on this host), or `host` (a name or an IP
    address without brackets) and `port` (0 to 65535, 0 being any free one for
    who listens). `secure`: TLS is spoken there. `resolver` is the gRPC name
    resolver asked for, or empty.
    """

    socket_path: str = ""
    host: str = ""
    port: int = 0
    secure: bool = False
    resolver: str = ""

    @classmethod
    def parse(cls, text: str) -> Address:
        """The address that `text` notes.

        Raises ValueError, with a sentence for people, when it notes none.
        """
        if text.startswith("/"):
            return _unix(text, path=text)
        scheme, colon, rest = text.partition(":")
        if colon and scheme == "unix":
            return _unix(text, path=_after("//", rest))
        if colon and scheme in {"grpc", "grpcs"} and rest.startswith("//"):
            return _tcp(text, authority=rest[2:], secure=scheme == "grpcs")
        if colon and scheme == "dns":
            return _tcp(text, authority=_after("///", rest), resolver="dns")
        return _tcp(text, authority=text)

    @property
    def target(self) -> str:
        """The address as gRPC wants it, for channels and for servers."""
        if self.socket_path:
            return f"unix:{self.socket_path}"
        return f"dns:///{self.authority}" if self.resolver == "dns" else self.authority

    @property
    def authority(self) -> str:
        """`host:port`, an IPv6 address in brackets; empty for a socket."""
        if self.socket_path:
            return ""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_local(self) -> bool:
        """Only processes of this host can reach it: a Unix socket or a loopback address."""
        if self.socket_path or self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def __str__(self) -> str:
        return f"grpcs://{self.authority}" if self.secure else self.target


def default_socket() -> str:
    """The address at which a daemon of this user listens unless told otherwise.

    `/run/virtrpc/virtrpc.sock` for root; else below `$XDG_RUNTIME_DIR`, or
    `~/.local/state` where that is not set. The folder may not exist yet.
    """
    if os.geteuid() == 0:
        folder = Path("/run/virtrpc")
    elif runtime := os.environ.get("XDG_RUNTIME_DIR"):
        folder = Path(runtime) / "virtrpc"
    else:
        folder = Path.home() / ".local" / "state" / "virtrpc"
    return f"unix:{folder / SOCKET_NAME}"


def parsed(address: str | Address | None) -> Address:
    """The address that is noted or given; None: this user's local daemon."""
    if isinstance(address, Address):
        return address
    return Address.parse(address or default_socket())


def _unix(text: str, *, path: str) -> Address:
    if not path or "\0" in path:
        raise ValueError(f"{text!r} is not an address: the socket's path is missing")
    if len(os.fsencode(path)) > SOCKET_PATH_BYTES:
        raise ValueError(f"{text!r} is longer than a socket's path of {SOCKET_PATH_BYTES} bytes")
    return Address(socket_path=path)


def _after(prefix: str, text: str) -> str:
    return text[len(prefix) :] if text.startswith(prefix) else text


def _tcp(text: str, *, authority: str, secure: bool = False, resolver: str = "") -> Address:
    host, colon, port = authority.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not colon or not host or (":" in host and not bracketed) or set(host) & set("/@?# "):
        raise ValueError(f"{text!r} is not an address: expected host:port or unix:/path")
    if not (port.isascii() and port.isdigit() and int(port) < 2**16):
        raise ValueError(f"{text!r} is not an address: {port!r} is no port number")
    host = host[1:-1] if bracketed else host
    return Address(host=host, port=int(port), secure=secure, resolver=resolver)
