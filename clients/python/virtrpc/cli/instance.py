"""`instance`: which there are, how one is; its other verbs are in instance_*."""

from __future__ import annotations

from collections.abc import Sequence

import click

from virtrpc.cli import (
    instance_explain,
    instance_guest,
    instance_host,
    instance_image,
    instance_import,
    instance_metadata,
    instance_power,
    instance_removal,
    instance_resize,
    instance_share,
    instance_view,
)
from virtrpc.cli.command import Noun
from virtrpc.cli.naming import instance_argument, instance_id
from virtrpc.cli.parameters import PAIR, EnumChoice
from virtrpc.cli.session import Session, pass_session
from virtrpc.cli.spawn import spawn
from virtrpc.cli.structure import structure
from virtrpc.paging import pages
from virtrpc.v1 import instance_pb2 as messages
from virtrpc.v1.types_pb2 import PowerState


@click.group(cls=Noun)
def noun() -> None:
    """The instances of the host; named by their names or UUIDs."""


for verb in (
    spawn,
    *instance_power.VERBS,
    *instance_removal.VERBS,
    *instance_image.VERBS,
    *instance_guest.VERBS,
    *instance_host.VERBS,
    *instance_import.VERBS,
    *instance_share.VERBS,
    instance_resize.resize,
    instance_metadata.noun,
    instance_explain.explain,
):
    noun.add_command(verb)


@noun.command("list")
@click.option("--state", "states", type=EnumChoice(PowerState), multiple=True, help="Repeatable.")
@click.option("--label", "labels", type=PAIR, multiple=True, help="Those with it. Repeatable.")
@click.option("--all", "everything", is_flag=True, help="Soft-deleted ones too.")
@click.option("-q", "--quiet", is_flag=True, help="UUIDs only.")
@pass_session
def list_(
    session: Session,
    /,
    *,
    states: Sequence[PowerState.ValueType],
    labels: Sequence[tuple[str, str]],
    everything: bool,
    quiet: bool,
) -> None:
    """Lists instances."""
    request = messages.ListInstancesRequest(
        power_states=states, labels=dict(labels), include_soft_deleted=everything
    )
    whole = messages.ListInstancesResponse()
    for page in pages(session.client.instances.ListInstances, request):
        whole.MergeFrom(page)
    whole.next_page_token = ""
    instance_view.note_freshness(session, whole.freshness)
    table = instance_view.identifiers if quiet else instance_view.listed
    document = {"instances": [], **structure(whole)}
    session.output.document(document, lambda: table(whole.instances))


@noun.command("get")
@instance_argument
@click.option("--fresh", is_flag=True, help="Ask the hypervisor itself.")
@pass_session
def get(session: Session, /, *, instance: str, fresh: bool) -> None:
    """Shows an instance."""
    request = messages.GetInstanceRequest(
        instance_id=instance_id(session.client, instance), fresh=fresh
    )
    response = session.client.instances.GetInstance(request)
    instance_view.note_freshness(session, response.freshness)
    session.output.document(response, lambda: instance_view.shown(response.instance))
