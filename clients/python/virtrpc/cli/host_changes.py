"""`host enable|disable|maintenance|power`: whether the host takes instances in, and its power."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click
from rich.console import Group, RenderableType
from rich.text import Text

from virtrpc.cli.command import Noun, Verb, mutation_options, no_wait_option
from virtrpc.cli.long_running import CHECKED, ended
from virtrpc.cli.parameters import EnumChoice
from virtrpc.cli.session import Session, pass_session
from virtrpc.cli.tables import Column, listing, state
from virtrpc.cli.words import word
from virtrpc.v1 import host_pb2 as messages


def acceptance(host: messages.Host) -> str:
    """Whether new instances are accepted, and why not."""
    if host.enabled:
        return "new ones are accepted"
    why = f": {host.disabled_reason}" if host.disabled_reason else ""
    return ("in maintenance" if host.maintenance else "new ones are refused") + why


@click.command("enable", cls=Verb)
@mutation_options
@pass_session
def enable(session: Session, /, **common: Any) -> None:
    """Accepts new instances again."""
    _set_enabled(session, messages.SetHostEnabledRequest(enabled=True, **common))


@click.command("disable", cls=Verb)
@click.option("--reason", default="", metavar="TEXT", help="Why, for those who are refused.")
@mutation_options
@pass_session
def disable(session: Session, /, **options: Any) -> None:
    """Refuses new instances; those that are there go on."""
    _set_enabled(session, messages.SetHostEnabledRequest(enabled=False, **options))


def _set_enabled(session: Session, request: messages.SetHostEnabledRequest) -> None:
    response = session.client.hosts.SetHostEnabled(request)
    done = CHECKED if request.validate_only else f"instances: {acceptance(response.host)}"
    session.output.document(response, lambda: done)


@click.group("maintenance", cls=Noun)
def maintenance() -> None:
    """The host without instances, for as long as it takes."""


@maintenance.command("on")
@click.option("--reason", default="", metavar="TEXT", help="Why, for those who are refused.")
@click.option(
    "--to",
    "destination_uris",
    metavar="URI",
    multiple=True,
    help="Daemon to migrate instances to. Repeatable.  [default: nothing is moved]",
)
@click.option(
    "--parallel",
    "max_parallel",
    type=click.IntRange(1, 16),
    default=1,
    show_default=True,
    help="Most migrations at a time.",
)
@no_wait_option
@mutation_options
@pass_session
def maintenance_on(session: Session, /, *, no_wait: bool, **options: Any) -> None:
    """Refuses new instances and migrates those that are on away."""
    request = messages.SetMaintenanceModeRequest(maintenance=True, **options)
    _set_maintenance(session, request, no_wait=no_wait)


@maintenance.command("off")
@no_wait_option
@mutation_options
@pass_session
def maintenance_off(session: Session, /, *, no_wait: bool, **common: Any) -> None:
    """Ends it; instances do not come back by themselves."""
    request = messages.SetMaintenanceModeRequest(maintenance=False, **common)
    _set_maintenance(session, request, no_wait=no_wait)


def _set_maintenance(
    session: Session, request: messages.SetMaintenanceModeRequest, *, no_wait: bool
) -> None:
    operation = session.client.hosts.SetMaintenanceMode(request)
    end = ended(session, operation, checked=request.validate_only, no_wait=no_wait, words=_told)
    result = end.document
    outcomes: Sequence[messages.MaintenanceInstance] = ()
    if isinstance(result, messages.SetMaintenanceModeResponse):
        outcomes = result.instances
    session.output.document(result, lambda: _shown(end.text, outcomes))


def _told(response: messages.SetMaintenanceModeResponse) -> str:
    left = sum(
        instance.outcome == messages.MAINTENANCE_OUTCOME_FAILED for instance in response.instances
    )
    still = f"; {left} of {len(response.instances)} instances are still on" if left else ""
    return f"instances: {acceptance(response.host)}{still}"


def _shown(text: str, outcomes: Sequence[messages.MaintenanceInstance]) -> RenderableType:
    if not outcomes:
        return text
    columns = (
        Column("ID", whole=True),
        Column("NAME"),
        Column("OUTCOME", whole=True),
        Column("DESTINATION", wide=True),
        Column("WHY"),
    )
    return Group(text, "", listing(columns, [_row(outcome) for outcome in outcomes]))


def _row(outcome: messages.MaintenanceInstance) -> tuple[str | Text, ...]:
    return (
        outcome.instance_id,
        outcome.name,
        state(word(messages.MaintenanceOutcome, outcome.outcome)),
        outcome.destination_uri,
        outcome.error.message,
    )


@click.command("power", cls=Verb)
@click.argument("action", type=EnumChoice(messages.HostPower))
@click.option("--force", is_flag=True, help="With instances running too: they end with the host.")
@click.confirmation_option(prompt="This changes the power of the whole host. Go on?")
@mutation_options
@pass_session
def power(session: Session, /, **options: Any) -> None:
    """Shuts the host down or restarts it."""
    request = messages.HostPowerActionRequest(**options)
    response = session.client.hosts.HostPowerAction(request)
    done = "the host is on" if response.already_done else "accepted by the host"
    session.output.document(response, lambda: CHECKED if request.validate_only else done)


VERBS = (enable, disable, maintenance, power)
