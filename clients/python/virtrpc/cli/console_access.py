"""`console access`: where a console is, and a token that opens it once."""

from __future__ import annotations

from collections.abc import Iterator

import click
from google.protobuf.duration_pb2 import Duration

from virtrpc.cli.command import Verb, mutation_options
from virtrpc.cli.naming import INSTANCE, instance_id
from virtrpc.cli.parameters import EnumChoice
from virtrpc.cli.session import Session, pass_session
from virtrpc.cli.tables import properties
from virtrpc.cli.words import when, word
from virtrpc.v1.console_pb2 import ConsoleType, GetConsoleRequest, GetConsoleResponse

_POOL = ConsoleType.CONSOLE_TYPE_POOL
type_option = click.option(
    "--type",
    "type_",
    type=EnumChoice(
        ConsoleType, only=[number for number in ConsoleType.values() if number != _POOL]
    ),
    default="vnc",
    show_default=True,
    help="Kind of console.",
)


@click.command("access", cls=Verb)
@click.argument("instance", type=INSTANCE)
@type_option
@click.option(
    "--lifetime",
    "lifetime_s",
    type=click.IntRange(1, 3600),
    metavar="SECONDS",
    help="How long the token may be used.  [default: 600]",
)
@click.option("--url", is_flag=True, help="Write the address for a browser alone.")
@mutation_options
@pass_session
def access(
    session: Session,
    /,
    *,
    instance: str,
    type_: ConsoleType.ValueType,
    lifetime_s: int | None,
    url: bool,
    request_id: str,
    validate_only: bool,
) -> None:
    """Makes an access to a console: an address, and a token that opens it once."""
    request = GetConsoleRequest(
        instance_id=instance_id(session.client, instance),
        type=type_,
        request_id=request_id,
        validate_only=validate_only,
    )
    if lifetime_s is not None:
        request.lifetime.CopyFrom(Duration(seconds=lifetime_s))
    response = session.client.consoles.GetConsole(request)
    if not url:
        session.output.document(response, lambda: properties(_facts(response)))
    elif response.web_url:
        click.echo(response.web_url)
    elif not validate_only:
        raise click.ClickException("the daemon serves no page for this console (--http)")


@click.command("pool", cls=Verb)
@type_option
@pass_session
def pool(session: Session, /, *, type_: ConsoleType.ValueType) -> None:
    """Shows where a console proxy logs in to this host's consoles."""
    response = session.client.consoles.GetConsole(GetConsoleRequest(type=_POOL, pooled_type=type_))
    session.output.document(response, lambda: properties(_facts(response)))


def _facts(response: GetConsoleResponse) -> Iterator[tuple[str, str]]:
    yield "type", word(ConsoleType, response.type)
    yield "host", response.host
    yield "port", _port(response.port)
    yield "TLS port", _port(response.tls_port)
    yield "path", response.path
    yield "token", response.token
    yield "expires", when(response.expires_at)
    yield "page", response.web_url
    yield "address", response.pool.address
    yield "username", response.pool.username
    yield "password", response.pool.password


def _port(number: int) -> str:
    return str(number) if number else ""
