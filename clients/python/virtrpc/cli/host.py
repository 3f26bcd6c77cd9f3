"""`host`: what it is, and what it can do; its other verbs are in host_*."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import click
from rich.console import Group, RenderableType
from rich.text import Text

from virtrpc.cli import host_aggregate, host_changes, host_resources
from virtrpc.cli.command import Noun
from virtrpc.cli.instance_view import note_freshness
from virtrpc.cli.session import Session, pass_session
from virtrpc.cli.tables import Column, listing, properties
from virtrpc.cli.words import length, when, word
from virtrpc.v1 import host_pb2 as messages


@click.group(cls=Noun)
def noun() -> None:
    """The host that the daemon runs on."""


for verb in (*host_resources.VERBS, *host_changes.VERBS, host_aggregate.noun):
    noun.add_command(verb)


@noun.command("show")
@pass_session
def show(session: Session, /) -> None:
    """Shows the host, its hypervisor and the daemon."""
    response = session.client.hosts.GetHost(messages.GetHostRequest())
    note_freshness(session, response.freshness)
    session.output.document(response, lambda: properties(_facts(response.host)))


@noun.command("capabilities")
@click.option("--missing", is_flag=True, help="Only what it cannot do, and why.")
@pass_session
def capabilities(session: Session, /, *, missing: bool) -> None:
    """Shows what the backend can do on this host."""
    response = session.client.hosts.GetCapabilities(messages.GetCapabilitiesRequest())
    if missing:
        kept = [item for item in response.capabilities if not item.supported]
        del response.capabilities[:]
        response.capabilities.extend(kept)
    session.output.document(response, lambda: _shown(response))


def _facts(host: messages.Host) -> Iterator[tuple[str, str | Text]]:
    yield "hostname", host.hostname
    yield "id", host.host_id
    yield "address", host.ip_address
    yield "uptime", length(host.uptime) if host.HasField("uptime") else ""
    yield "system", ", ".join(filter(None, (host.operating_system, host.kernel_version)))
    yield "load", _load(host)
    yield "backend", host.backend
    yield "hypervisor", _hypervisor(host.hypervisor)
    yield "connection", _connection(host.connection)
    yield "daemon", f"{host.daemon_version} {word(messages.DaemonState, host.daemon_state)}"
    yield "started", when(host.daemon_started_at)
    yield "instances", host_changes.acceptance(host)
    yield "aggregates", ", ".join(item.name or item.aggregate_id for item in host.aggregates)
    yield "operation", host.operation_id


def _load(host: messages.Host) -> str:
    if not host.HasField("load"):
        return ""
    averages = (host.load.one_minute, host.load.five_minutes, host.load.fifteen_minutes)
    return " ".join(f"{average:.2f}" for average in averages)


def _hypervisor(info: messages.HypervisorInfo) -> str:
    driven_by = f"by {info.library} {info.library_version}" if info.library else ""
    return " ".join(filter(None, (info.type, info.version, driven_by)))


def _connection(connection: messages.HypervisorConnection) -> str:
    state = word(messages.HypervisorConnectionState, connection.state)
    return " ".join(filter(None, (state, connection.uri, connection.error)))


def _shown(response: messages.GetCapabilitiesResponse) -> RenderableType:
    summary = properties(
        (
            ("backend", response.backend),
            ("hypervisor", _hypervisor(response.hypervisor)),
            ("guests", response.virt_type),
            ("why", response.virt_type_reason),
            ("probed", when(response.probed_at)),
        )
    )
    return Group(summary, "", _listed(response.capabilities))


def _listed(found: Iterable[messages.Capability]) -> RenderableType:
    columns = (Column("CAPABILITY", whole=True), Column("SUPPORTED", whole=True), Column("WHY NOT"))
    return listing(columns, [_row(item) for item in found])


def _row(item: messages.Capability) -> tuple[str | Text, ...]:
    if item.supported:
        return item.name, Text("yes", style="green"), ""
    return item.name, Text("no", style="yellow"), item.message or item.reason
