"""A daemon that serves TLS, and callers of it with certificates of a test's authority."""

from collections.abc import Sequence
from pathlib import Path

import grpc

from deploy.demo.place import free_port
from tests.authority import Authority, Issued
from tests.daemon import Connection, DaemonProcess

DOMAIN = "spiffe://test"
ROLES = ("viewer", "operator", "migrator", "admin")


class TlsDaemon(DaemonProcess):
    """The fake on loopback with TLS; `spiffe://test/ROLE` has the role, and
    `spiffe://test/host/*` that of migrator.
    """

    def __init__(
        self,
        folder: Path,
        authority: Authority,
        *,
        own: Issued | None = None,
        arguments: Sequence[str] = (),
    ) -> None:
        self.authority = authority
        self.port = free_port()
        self.uri = f"grpcs://localhost:{self.port}"
        self.files = (own or authority.host()).write(folder)
        cert, key, ca = self.files
        super().__init__(
            folder,
            backend="fake",
            arguments=[
                f"--listen=grpcs://127.0.0.1:{self.port}",
                *(f"--tls-cert={cert}", f"--tls-key={key}", f"--tls-ca={ca}"),
                *(f"--role-{role}={DOMAIN}/{role}" for role in ROLES),
                f"--role-migrator={DOMAIN}/host/*",
                *arguments,
            ],
        )

    def connect_with(self, credentials: grpc.ChannelCredentials) -> Connection:
        """A connection of the holder of a certificate."""
        return Connection(f"localhost:{self.port}", credentials)

    def connect_as(self, name: str) -> Connection:
        """A connection of `spiffe://test/NAME`."""
        issued = self.authority.issue(uris=[f"{DOMAIN}/{name}"])
        return self.connect_with(issued.credentials())
