"""`instance resume-on-host-boot` and the polls: what the daemon also does by itself."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import click

from virtrpc.cli.change import change, duration
from virtrpc.cli.command import Verb, mutation_options, timeout_option
from virtrpc.cli.long_running import CHECKED
from virtrpc.cli.naming import instances_argument
from virtrpc.cli.parameters import EnumChoice
from virtrpc.cli.session import Session, pass_session
from virtrpc.cli.structure import structure
from virtrpc.v1 import instance_pb2 as messages
from virtrpc.v1.types_pb2 import PowerState

_STATES_TO_BRING_BACK = (
    PowerState.POWER_STATE_RUNNING,
    PowerState.POWER_STATE_PAUSED,
    PowerState.POWER_STATE_SHUTDOWN,
    PowerState.POWER_STATE_SUSPENDED,
)


@click.command("resume-on-host-boot", cls=Verb)
@instances_argument
@click.option(
    "--state",
    type=EnumChoice(PowerState, only=_STATES_TO_BRING_BACK),
    help="State that they should have.  [default: when last seen]",
)
@mutation_options
@pass_session
def resume_on_host_boot(
    session: Session,
    /,
    *,
    instances: Sequence[str],
    state: PowerState.ValueType | None,
    **common: Any,
) -> None:
    """Brings instances back to the state that they should have after the host's restart."""
    wanted = state or PowerState.POWER_STATE_UNSPECIFIED
    request = partial(messages.ResumeInstanceOnHostBootRequest, power_state=wanted, **common)
    change(session, instances, session.client.instances.ResumeInstanceOnHostBoot, request)


@click.command("poll-rebooting", cls=Verb)
@timeout_option("Longer than this is too long.  [default: 120]")
@mutation_options
@pass_session
def poll_rebooting(session: Session, /, *, timeout_s: float | None, **common: Any) -> None:
    """Resets the instances of the host that are stuck in a soft reboot."""
    request = messages.PollRebootingInstancesRequest(timeout=duration(timeout_s), **common)
    response = session.client.instances.PollRebootingInstances(request)
    document = {"instance_ids": [], **structure(response)}
    checked = request.validate_only
    session.output.document(document, lambda: CHECKED if checked else _reset(response))


@click.command("poll-rescued", cls=Verb)
@timeout_option("Longer than this is too long.  [default: 120]")
@mutation_options
@pass_session
def poll_rescued(session: Session, /, *, timeout_s: float | None, **common: Any) -> None:
    """Unrescues the instances of the host that are in rescue for too long."""
    request = messages.PollRescuedInstancesRequest(timeout=duration(timeout_s), **common)
    response = session.client.instances.PollRescuedInstances(request)
    document = {"instance_ids": [], **structure(response)}
    checked = request.validate_only
    session.output.document(document, lambda: CHECKED if checked else _unrescued(response))


def _reset(response: messages.PollRebootingInstancesResponse) -> str:
    lines = [f"{instance_id}: reset" for instance_id in response.instance_ids]
    return "\n".join(lines) or "no instance is stuck"


def _unrescued(response: messages.PollRescuedInstancesResponse) -> str:
    lines = [f"{instance_id}: unrescued" for instance_id in response.instance_ids]
    return "\n".join(lines) or "no instance is in rescue for so long"


VERBS = (resume_on_host_boot, poll_rebooting, poll_rescued)
