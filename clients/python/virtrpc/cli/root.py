"""The command itself: global options, the nouns, and what becomes of errors.

Exit codes: 0 done; 2 wrong usage; 64 + gRPC code for what the service refused
or failed to do (69: NOT_FOUND), for calls and operations alike; 130 after
Ctrl-C; 141 when the reader of a pipe went away.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

import click

from virtrpc.address import Address, default_socket
from virtrpc.cli.command import output_option
from virtrpc.cli.failure import exit_code
from virtrpc.cli.parameters import ParamType, Seconds
from virtrpc.cli.session import Session
from virtrpc.cli.tls_options import credentials_for, tls_options
from virtrpc.errors import ServiceError

# Noun: module of this package with a click command called `noun`.
NOUNS = (
    "completion",
    "console",
    "diagnostics",
    "event",
    "firewall",
    "host",
    "image",
    "instance",
    "interface",
    "migration",
    "operation",
    "volume",
)
INTERRUPTED = 130
BROKEN_PIPE = 141
# The output cannot be written, e.g. to a full disk.
UNWRITABLE = 1


class Root(click.Group):
    """Imports a noun's module when it is named."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's
        """All nouns, sorted."""
        return sorted(NOUNS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """The noun's command; None for what is no noun."""
        if cmd_name not in NOUNS:
            return None
        command: click.Command = import_module(f"virtrpc.cli.{cmd_name}").noun
        return command

    def invoke(self, ctx: click.Context) -> object:
        """Runs a command; errors of the service become a report and an exit code."""
        session = ctx.ensure_object(Session)
        try:
            super().invoke(ctx)
            sys.stdout.flush()
        except ServiceError as error:
            session.report(error)
            ctx.exit(exit_code(error))
        except KeyboardInterrupt:
            ctx.exit(INTERRUPTED)
        except BrokenPipeError:
            _silence_stdout()
            ctx.exit(BROKEN_PIPE)
        return None


class AddressParameter(ParamType):
    """An address as virtrpc.address notes it."""

    name = "address"

    def convert(
        self, value: str | Address, param: click.Parameter | None, ctx: click.Context | None
    ) -> Address:
        """Refuses what is no address."""
        if isinstance(value, Address):
            return value
        try:
            return Address.parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


@click.command(cls=Root, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(metadata.version("virtrpc"), prog_name="virtrpc")
@click.option(
    "--address",
    type=AddressParameter(),
    default=default_socket,
    envvar="VIRTRPC_ADDRESS",
    show_default="the local socket",
    show_envvar=True,
    help="Daemon: unix:/path, host:port, dns:///host:port or grpcs://host:port.",
)
@click.option(
    "--timeout",
    type=Seconds(min_open=True),
    metavar="SECONDS",
    help="Longest wait for an answer, or for an operation's end; streams have none.",
)
@tls_options
@output_option
@click.pass_context
def root(context: click.Context, /, address: Address, timeout: float | None, **tls: Any) -> None:
    """Talks to virtrpcd, the virtualization service of a host."""
    session = context.ensure_object(Session)
    session.address = address
    session.timeout_s = timeout
    session.credentials = credentials_for(address, context, tls)
    context.call_on_close(session.close)


def run(arguments: Sequence[str]) -> int:
    """Runs the command line with these arguments; returns the exit code."""
    if sys.stdout is None:  # it was closed by who called us
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
    try:
        _require_text(arguments)
        code = root.main(list(arguments), prog_name="virtrpc", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        return INTERRUPTED
    except OSError as error:
        _silence_stdout()
        click.echo(f"error: {error.strerror or error}", err=True)
        return UNWRITABLE
    return code if isinstance(code, int) else 0


def _require_text(arguments: Sequence[str]) -> None:
    """Bytes that are no UTF-8 come as lone surrogates, which Protobuf refuses."""
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError:
            raise click.UsageError(f"{argument!a} is not valid UTF-8") from None


def _silence_stdout() -> None:
    """Nobody reads it: what is still buffered must not fail at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
