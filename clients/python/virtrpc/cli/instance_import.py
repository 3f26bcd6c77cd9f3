"""`instance import`: instances that somebody else made become the service's own."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import click
from rich.console import Group, RenderableType

from virtrpc.cli import specification
from virtrpc.cli.command import Verb, mutation_options
from virtrpc.cli.naming import instance_argument, instance_id
from virtrpc.cli.session import Session, pass_session
from virtrpc.cli.tables import Column, listing
from virtrpc.cli.words import word
from virtrpc.v1 import host_pb2 as messages


@click.command("import", cls=Verb)
@instance_argument
@click.option(
    "--file",
    metavar="PATH",
    help="What it is to be recorded as: InstanceSpec in JSON or YAML, '-' for standard input."
    "  [default: what its machine says]",
)
@mutation_options
@pass_session
def import_(session: Session, /, *, instance: str, file: str | None, **common: Any) -> None:
    """Adopts an instance that the service did not make; its guest does not notice."""
    request = messages.ImportInstanceRequest(
        instance_id=instance_id(session.client, instance),
        spec=specification.from_file(file).spec if file else None,
        **common,
    )
    response = session.client.hosts.ImportInstance(request)
    done = "would be adopted" if request.validate_only else "is managed"
    session.output.document(
        response, lambda: _shown(f"{response.instance.name} {done}", response.differences)
    )


def _shown(text: str, differences: Iterable[messages.ImportDifference]) -> RenderableType:
    rows = [_row(difference) for difference in differences]
    if not rows:
        return text
    columns = (
        Column("WHAT", whole=True),
        Column("WHERE", whole=True),
        Column("FOUND"),
        Column("BECOMES"),
        Column("WHEN", whole=True),
    )
    return Group(text, "", listing(columns, rows))


def _row(difference: messages.ImportDifference) -> tuple[str, ...]:
    return (
        word(messages.ImportDifferenceKind, difference.kind),
        difference.path,
        difference.found,
        difference.becomes,
        "at next start" if difference.at_next_start else "",
    )


VERBS = (import_,)
