"""Settings of who may reach the daemon and what they may do: certificates and roles."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from service.roles import RoleBindings
from service.settings.types import OptionalFile, Pattern, Seconds
from service.tls_files import TlsFiles

DEFAULT_CONNECTION_MAX_AGE_S = 3600.0


def _role(name: str, may: str) -> Callable[[Any], Any]:
    return click.option(
        f"--role-{name}", multiple=True, type=Pattern(), metavar="IDENTITY",
        help=f"Who may {may}: the URI or DNS name of a client certificate, * for some of it."
        " Repeatable  [default: nobody]",
    )  # fmt: skip


ACCESS_FLAGS: tuple[Callable[[Any], Any], ...] = (
    click.option(
        "--tls-cert", type=OptionalFile(), metavar="FILE",
        help="Certificate, with its chain, for grpcs:// and https:// addresses and for calls to"
        " other hosts' daemons  [default: none]",
    ),
    click.option("--tls-key", type=OptionalFile(), metavar="FILE", help="Its key."),
    click.option(
        "--tls-ca", type=OptionalFile(), metavar="FILE",
        help="Authorities that sign the certificates of clients and of other hosts' daemons.",
    ),
    _role("viewer", "look at what is not secret"),
    _role("operator", "run instances"),
    _role("migrator", "bring instances here: the daemons of other hosts"),
    _role("admin", "do everything"),
    click.option(
        "--connection-max-age", type=Seconds(1, 7 * 24 * 3600),
        default=DEFAULT_CONNECTION_MAX_AGE_S, show_default=True,
        help="Seconds after which clients connect anew, where TLS is served; streams may go on"
        " for as long again.",
    ),
)  # fmt: skip


def access_settings(values: Mapping[str, Any]) -> dict[str, Any]:
    """The same values, with those of the options here as Settings has them."""
    rest = dict(values)
    files = [rest.pop(name) for name in ("tls_cert", "tls_key", "tls_ca")]
    return {
        "tls": _tls(*files),
        "roles": RoleBindings(
            viewers=rest.pop("role_viewer"),
            operators=rest.pop("role_operator"),
            migrators=rest.pop("role_migrator"),
            admins=rest.pop("role_admin"),
        ),
        "connection_max_age_s": rest.pop("connection_max_age"),
        **rest,
    }


def _tls(cert: Path | None, key: Path | None, ca: Path | None) -> TlsFiles | None:
    if cert is None and key is None and ca is None:
        return None
    if cert is None or key is None or ca is None:
        raise click.UsageError("--tls-cert, --tls-key and --tls-ca are given together, or none")
    return TlsFiles(cert.absolute(), key.absolute(), ca.absolute())
