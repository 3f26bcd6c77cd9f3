"""`instance metadata`: pairs that an instance carries, which its guest can see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

from virtrpc.cli.command import Noun, mutation_options
from virtrpc.cli.instance_view import note_freshness
from virtrpc.cli.long_running import CHECKED
from virtrpc.cli.naming import instance_argument, instance_id
from virtrpc.cli.parameters import PAIR
from virtrpc.cli.session import Session, pass_session
from virtrpc.v1 import instance_pb2 as messages


@click.group("metadata", cls=Noun)
def noun() -> None:
    """The metadata of an instance."""


@noun.command("get")
@instance_argument
@pass_session
def get(session: Session, /, *, instance: str) -> None:
    """Shows the metadata, a key=value a line."""
    request = messages.GetInstanceRequest(
        instance_id=instance_id(session.client, instance), view=messages.INSTANCE_VIEW_BASIC
    )
    response = session.client.instances.GetInstance(request)
    note_freshness(session, response.freshness)
    _tell(session, response.instance.metadata)


@noun.command("set")
@instance_argument
@click.argument("pairs", metavar="KEY=VALUE...", type=PAIR, nargs=-1, required=True)
@mutation_options
@pass_session
def set_(
    session: Session, /, *, instance: str, pairs: Sequence[tuple[str, str]], **common: Any
) -> None:
    """Adds or changes keys; shows the metadata afterwards."""
    _update(session, instance, set=dict(pairs), **common)


@noun.command("unset")
@instance_argument
@click.argument("keys", metavar="KEY...", nargs=-1, required=True)
@mutation_options
@pass_session
def unset(session: Session, /, *, instance: str, keys: Sequence[str], **common: Any) -> None:
    """Removes keys; shows the metadata afterwards."""
    _update(session, instance, remove=keys, **common)


def _update(session: Session, name: str, **fields: Any) -> None:
    request = messages.UpdateInstanceMetadataRequest(
        instance_id=instance_id(session.client, name), **fields
    )
    response = session.client.instances.UpdateInstanceMetadata(request)
    if request.validate_only:
        session.output.document(response, lambda: CHECKED)
    else:
        _tell(session, response.metadata)


def _tell(session: Session, metadata: Mapping[str, str]) -> None:
    lines = (f"{key}={value}" for key, value in sorted(metadata.items()))
    session.output.document({"metadata": dict(metadata)}, lambda: "\n".join(lines))
