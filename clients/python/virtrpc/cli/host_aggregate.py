"""`host aggregate`: the pools of hosts that this one is a member of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import click
from rich.console import RenderableType

from virtrpc.cli.command import Noun, mutation_options
from virtrpc.cli.long_running import CHECKED
from virtrpc.cli.parameters import PAIR, EnumChoice
from virtrpc.cli.session import Session, pass_session
from virtrpc.cli.structure import structure
from virtrpc.cli.tables import Column, listing
from virtrpc.cli.words import pairs, when
from virtrpc.v1 import host_pb2 as messages

_aggregate_argument = click.argument("aggregate_id", metavar="UUID", type=click.UUID)


@click.group("aggregate", cls=Noun)
def noun() -> None:
    """The aggregates (pools of hosts) that the host is a member of."""


@noun.command("list")
@pass_session
def list_(session: Session, /) -> None:
    """Lists them."""
    host = session.client.hosts.GetHost(messages.GetHostRequest()).host
    document = {"aggregates": [structure(aggregate) for aggregate in host.aggregates]}
    session.output.document(document, lambda: _listed(host.aggregates))


@noun.command("add")
@_aggregate_argument
@click.option("--name", default="", metavar="TEXT", help="Its name, for people.")
@click.option("--metadata", type=PAIR, multiple=True, help="Metadata. Repeatable.")
@mutation_options
@pass_session
def add(
    session: Session,
    /,
    *,
    aggregate_id: object,
    metadata: Sequence[tuple[str, str]],
    **options: Any,
) -> None:
    """Makes the host a member; a repeat replaces name and metadata."""
    request = messages.AddToAggregateRequest(
        aggregate_id=str(aggregate_id), metadata=dict(metadata), **options
    )
    _tell(session, request, session.client.hosts.AddToAggregate(request))


@noun.command("remove")
@_aggregate_argument
@mutation_options
@pass_session
def remove(session: Session, /, *, aggregate_id: object, **common: Any) -> None:
    """Ends the membership."""
    request = messages.RemoveFromAggregateRequest(aggregate_id=str(aggregate_id), **common)
    _tell(session, request, session.client.hosts.RemoveFromAggregate(request))


@noun.command("undo")
@click.argument("operation", type=EnumChoice(messages.AggregateOperation))
@_aggregate_argument
@mutation_options
@pass_session
def undo(session: Session, /, *, aggregate_id: object, **options: Any) -> None:
    """Takes an addition or a removal back."""
    request = messages.UndoAggregateOperationRequest(aggregate_id=str(aggregate_id), **options)
    _tell(session, request, session.client.hosts.UndoAggregateOperation(request))


def _tell(session: Session, request: Any, response: Any) -> None:
    session.output.document(
        response, lambda: CHECKED if request.validate_only else _listed(response.aggregates)
    )


def _listed(aggregates: Iterable[messages.Aggregate]) -> RenderableType:
    columns = (
        Column("ID", whole=True),
        Column("NAME"),
        Column("SINCE", whole=True, wide=True),
        Column("METADATA"),
    )
    rows = [
        (found.aggregate_id, found.name, when(found.added_at), pairs(found.metadata))
        for found in aggregates
    ]
    return listing(columns, rows)
