"""Options that say who calls a daemon by TLS, and whom to trust there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from virtrpc.address import Address
from virtrpc.tls import tls_credentials

if TYPE_CHECKING:
    import grpc

_FILES = {
    "ca": "Authorities that sign the certificates of daemons  [default: the system's].",
    "cert": "Our certificate, which grpcs:// addresses demand.",
    "key": "Its key.",
}


def tls_options(command: Callable[..., None]) -> Callable[..., None]:
    """Adds `--tls-ca`, `--tls-cert` and `--tls-key`."""
    for name, text in reversed(_FILES.items()):
        command = click.option(
            f"--tls-{name}",
            type=click.Path(path_type=Path),
            envvar=f"VIRTRPC_TLS_{name.upper()}",
            show_envvar=True,
            metavar="FILE",
            help=text,
        )(command)
    return command


def credentials_for(
    address: Address, context: click.Context, files: dict[str, Any]
) -> grpc.ChannelCredentials | None:
    """What is shown at an address; None without TLS.

    The environment may hold files that this address has no use for; a flag says that TLS is
    meant, and must not end in a call without it. Raises click.UsageError.
    """
    if address.secure:
        return _read(files)
    for name in files:
        if context.get_parameter_source(name) == ParameterSource.COMMANDLINE:
            flag = f"--{name.replace('_', '-')}"
            raise click.UsageError(f"{flag}: {address} is without TLS; grpcs://host:port is with")
    return None


def _read(files: dict[str, Any]) -> grpc.ChannelCredentials:
    try:
        return tls_credentials(**{name.removeprefix("tls_"): path for name, path in files.items()})
    except OSError as error:
        raise click.UsageError(f"{error.filename}: {error.strerror}") from error
    except ValueError:
        raise click.UsageError("--tls-cert and --tls-key are given together") from None
