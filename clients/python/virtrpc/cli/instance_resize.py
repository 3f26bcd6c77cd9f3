"""`instance resize`: another size and shape on the same host, to be confirmed or reverted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from virtrpc.cli import progress
from virtrpc.cli.change import duration, each, state_of
from virtrpc.cli.command import mutation_options
from virtrpc.cli.flavor import asked_flavor, flavor_options
from virtrpc.cli.long_running import CHECKED, ended
from virtrpc.cli.naming import instance_id, instances_argument
from virtrpc.cli.parameters import Seconds
from virtrpc.cli.session import Session, pass_session
from virtrpc.v1 import migration_pb2 as messages
from virtrpc.v1.operation_pb2 import Operation
from virtrpc.v1.types_pb2 import PowerState

_ON = (PowerState.POWER_STATE_RUNNING, PowerState.POWER_STATE_PAUSED)


@click.command("resize")
@instances_argument
@flavor_options
@click.option("--timeout", type=Seconds(), metavar="SECONDS",
              help="How long the guest has to shut down; 0 forces.  [default: 60]")  # fmt: skip
@click.option("--confirm", is_flag=True, help="Do not keep what was before.")
@mutation_options
@pass_session
def resize(session: Session, /, *, instances: Sequence[str], confirm: bool, **given: Any) -> None:
    """Makes instances larger; one that ran is shut down and started again.

    `migration confirm` then forgets what was before, `migration revert` brings it back.
    """

    def act(name: str) -> None:
        id_ = instance_id(session.client, name)
        operation = _first_half(session, id_, given)
        if given["validate_only"]:
            session.output.element(operation, lambda: f"{name}: {CHECKED}")
            return
        released = progress.result(session, operation)
        assert isinstance(released, messages.MigrateDiskAndPowerOffResponse)  # noqa: S101
        end = ended(
            session, _second_half(session, released), checked=False, no_wait=False, words=state_of
        )
        if confirm:
            session.client.migrations.ConfirmMigration(
                messages.ConfirmMigrationRequest(
                    instance_id=id_, migration_id=released.data.migration_id
                )
            )
        waits = "" if confirm else ", to be confirmed or reverted"
        session.output.element(end.document, lambda: f"{name}: {end.text}, resized{waits}")

    each(session, instances, act)


def _first_half(session: Session, id_: str, given: dict[str, Any]) -> Operation:
    flavor = asked_flavor(session, id_, given)
    if flavor is None:
        raise click.UsageError("what is to be larger? --vcpus, --memory, --disk, …")
    return session.client.migrations.MigrateDiskAndPowerOff(
        messages.MigrateDiskAndPowerOffRequest(
            instance_id=id_,
            flavor=flavor,
            timeout=duration(given["timeout"]),
            request_id=given["request_id"],
            validate_only=given["validate_only"],
        )
    )


def _second_half(session: Session, released: messages.MigrateDiskAndPowerOffResponse) -> Operation:
    data = released.data
    return session.client.migrations.FinishMigration(
        messages.FinishMigrationRequest(
            instance_id=data.instance_id,
            migration_id=data.migration_id,
            data=data,
            power_on=released.old_power_state in _ON,
        )
    )
