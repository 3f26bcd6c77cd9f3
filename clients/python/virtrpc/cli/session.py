"""What a verb works with: the daemon's client, the output, and notes to its user."""

from __future__ import annotations

import click
import grpc

from virtrpc.address import Address, parsed
from virtrpc.cli.failure import rendered_error
from virtrpc.cli.output import Output
from virtrpc.client import Client
from virtrpc.errors import RpcError, ServiceError


class Session:
    """One run of the command line.

    `timeout_s`: longest wait in seconds for an answer or an operation; None: none.
    """

    def __init__(self) -> None:
        self.address: Address = parsed(None)
        self.timeout_s: float | None = None
        self.credentials: grpc.ChannelCredentials | None = None
        self.output = Output()
        self._client: Client | None = None

    @property
    def client(self) -> Client:
        """The client of the daemon, made when first used."""
        if self._client is None:
            self._client = Client(
                self.address, credentials=self.credentials, timeout_s=self.timeout_s
            )
        return self._client

    def close(self) -> None:
        """Ends the connection, if there is one."""
        if self._client is not None:
            self._client.close()

    def note(self, text: str) -> None:
        """Tells people something on standard error; programs get no notes."""
        if self.output.format == "table":
            click.echo(text, err=True)

    def report(self, error: ServiceError) -> None:
        """Tells an error on standard error, in the format of the output."""
        text = rendered_error(error, format=self.output.format, address=self.address)
        click.echo(text, err=True)

    def note_retry(self, error: RpcError, pause_s: float) -> None:
        """Tells that a stream broke and is opened again."""
        self.note(f"connection lost, trying again in {pause_s:.1f} s: {error}")


pass_session = click.make_pass_decorator(Session)
