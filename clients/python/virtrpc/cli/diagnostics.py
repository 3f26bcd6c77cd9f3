"""`diagnostics`: what instances use and do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import click
from rich.console import RenderableType

from virtrpc.cli import diagnostics_view
from virtrpc.cli.command import Noun
from virtrpc.cli.instance_view import note_freshness
from virtrpc.cli.naming import INSTANCE, instance_argument, instance_id
from virtrpc.cli.session import Session, pass_session
from virtrpc.cli.structure import structure
from virtrpc.paging import pages
from virtrpc.v1 import diagnostics_pb2 as messages

some_instances_argument = click.argument("instances", nargs=-1, type=INSTANCE)
fresh_option = click.option(
    "--fresh", is_flag=True, help="Ask the hypervisor now; else the last sample answers."
)


@click.group(cls=Noun)
def noun() -> None:
    """What instances use and do: counters, disks, resources."""


@noun.command("show")
@instance_argument
@fresh_option
@pass_session
def show(session: Session, /, *, instance: str, fresh: bool) -> None:
    """Shows all counters of an instance."""
    request = messages.GetInstanceDiagnosticsRequest(
        instance_id=instance_id(session.client, instance), fresh=fresh
    )
    response = session.client.diagnostics.GetInstanceDiagnostics(request)
    _tell(session, response, lambda: diagnostics_view.shown(response.diagnostics))


@noun.command("disks")
@instance_argument
@click.option("--volumes", "include_volumes", is_flag=True, help="Attached volumes too.")
@pass_session
def disks(session: Session, /, *, instance: str, include_volumes: bool) -> None:
    """Shows the sizes of an instance's disks, on or off."""
    request = messages.GetInstanceDiskInfoRequest(
        instance_id=instance_id(session.client, instance), include_volumes=include_volumes
    )
    response = session.client.diagnostics.GetInstanceDiskInfo(request)
    _tell(session, response, lambda: diagnostics_view.disk_sizes(response.disks))


@noun.command("block")
@instance_argument
@click.argument("device_name", metavar="DEVICE")
@fresh_option
@pass_session
def block(session: Session, /, *, instance: str, device_name: str, fresh: bool) -> None:
    """Shows the counters of one disk, e.g. vda, of a running instance."""
    request = messages.GetBlockStatsRequest(
        instance_id=instance_id(session.client, instance), device_name=device_name, fresh=fresh
    )
    response = session.client.diagnostics.GetBlockStats(request)
    _tell(session, response, lambda: diagnostics_view.block(response))


@noun.command("bandwidth")
@some_instances_argument
@pass_session
def bandwidth(session: Session, /, *, instances: Sequence[str]) -> None:
    """Lists the traffic of every interface of running instances."""
    request = messages.ListBandwidthCountersRequest(instance_ids=_ids(session, instances))
    call = session.client.diagnostics.ListBandwidthCounters
    whole = _whole(call, request, messages.ListBandwidthCountersResponse())
    _tell(session, whole, lambda: diagnostics_view.bandwidth(whole.counters), items="counters")


@noun.command("volumes")
@some_instances_argument
@click.option("--volume", "volume_ids", metavar="UUID", multiple=True, help="Repeatable.")
@pass_session
def volumes(session: Session, /, *, instances: Sequence[str], volume_ids: Sequence[str]) -> None:
    """Lists the use of every volume that is attached to a running instance."""
    request = messages.ListVolumeUsageRequest(
        instance_ids=_ids(session, instances), volume_ids=volume_ids
    )
    call = session.client.diagnostics.ListVolumeUsage
    whole = _whole(call, request, messages.ListVolumeUsageResponse())
    _tell(session, whole, lambda: diagnostics_view.volumes(whole.volumes), items="volumes")


@noun.command("usage")
@some_instances_argument
@pass_session
def usage(session: Session, /, *, instances: Sequence[str]) -> None:
    """Lists the resources that instances hold, on or off."""
    request = messages.ListInstanceUsageRequest(instance_ids=_ids(session, instances))
    call = session.client.diagnostics.ListInstanceUsage
    whole = _whole(call, request, messages.ListInstanceUsageResponse())
    _tell(session, whole, lambda: diagnostics_view.usage(whole.instances), items="instances")


def _ids(session: Session, names: Sequence[str]) -> list[str]:
    return [instance_id(session.client, name) for name in names]


def _whole(call: Callable[[Any], Any], request: Any, whole: Any) -> Any:
    """All pages of a listing as one reply."""
    for page in pages(call, request):
        whole.MergeFrom(page)
    whole.next_page_token = ""
    return whole


def _tell(
    session: Session,
    response: Any,
    people: Callable[[], RenderableType],
    *,
    items: str | None = None,
) -> None:
    """Writes a reply; programs find the array `items` of a listing even when it is empty."""
    note_freshness(session, response.freshness)
    document = {items: [], **structure(response)} if items else response
    session.output.document(document, people)
