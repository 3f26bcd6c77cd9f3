"""`migration`: instances change their host; what of it is done off is in migration_cold."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import click

from virtrpc.cli import migration_cold, migration_step
from virtrpc.cli.change import change, change_at_length, duration
from virtrpc.cli.command import Noun, mutation_options, no_wait_option
from virtrpc.cli.naming import instance_argument, instance_id, instances_argument
from virtrpc.cli.parameters import EnumChoice, Seconds
from virtrpc.cli.session import Session, pass_session
from virtrpc.cli.words import byte_size, length, word
from virtrpc.v1 import migration_pb2 as messages
from virtrpc.v1.migration_pb2 import (
    ForceCompleteMethod,
    LiveMigrationOptions,
    LiveMigrationResult,
    MigrationCounter,
    MigrationPhase,
    MigrationProgress,
    MigrationStorage,
    MigrationTimeoutAction,
)

# Options of the migration itself, by the fields of LiveMigrationOptions.
_ANY = ForceCompleteMethod.FORCE_COMPLETE_METHOD_UNSPECIFIED
_LENGTHS = ("timeout", "force_timeout", "max_downtime")


@click.group(cls=Noun)
def noun() -> None:
    """Instances on their way to other hosts, or to another size."""


for verb in (*migration_cold.VERBS, migration_step.noun):
    noun.add_command(verb)


@noun.command("live")
@instances_argument
@click.option("--to", "destination_uri", required=True, metavar="URI",
              help="Daemon of the destination, e.g. grpc://host:50051.")  # fmt: skip
@click.option("--storage", type=EnumChoice(MigrationStorage),
              help="How disks get there.  [default: as both hosts find out]")  # fmt: skip
@click.option("--bandwidth", "bandwidth_mib_per_s", type=click.IntRange(min=0), metavar="MIB/S",
              help="Most to be sent.")  # fmt: skip
@click.option("--auto-converge", is_flag=True, help="Slow the guest down if it must be.")
@click.option("--post-copy", is_flag=True, help="Allow post-copy, when it is forced to end.")
@click.option("--parallel", "parallel_connections", type=click.IntRange(2, 255),
              help="Connections for its memory.")  # fmt: skip
@click.option("--disk-over-commit", is_flag=True, help="Count only what disks take up now.")
@click.option("--after", "timeout", type=Seconds(), metavar="SECONDS",
              help="When to do what --then says.")  # fmt: skip
@click.option("--then", "timeout_action", type=EnumChoice(MigrationTimeoutAction),
              help="What to do when it takes too long.  [default: abort]")  # fmt: skip
@click.option("--force-timeout", type=Seconds(min_open=True), metavar="SECONDS",
              help="Abort when forcing takes longer.  [default: 300]")  # fmt: skip
@click.option("--max-downtime", type=Seconds(min_open=True), metavar="SECONDS",
              help="Longest standstill to plan for.  [default: 0.3]")  # fmt: skip
@click.option("--hypervisor-uri", default="", metavar="URI",
              help="The destination's hypervisor.  [default: as its daemon says]")  # fmt: skip
@click.option("--migration-uri", default="", metavar="URI",
              help="Where memory is received.  [default: as its daemon says]")  # fmt: skip
@no_wait_option
@mutation_options
@pass_session
def live(
    session: Session,
    /,
    *,
    instances: Sequence[str],
    destination_uri: str,
    hypervisor_uri: str,
    migration_uri: str,
    no_wait: bool,
    request_id: str,
    validate_only: bool,
    **options: Any,
) -> None:
    """Moves running instances to another host."""
    request = partial(
        messages.LiveMigrateInstanceRequest,
        destination_uri=destination_uri,
        hypervisor_uri=hypervisor_uri,
        migration_uri=migration_uri,
        options=_options(options),
        request_id=request_id,
        validate_only=validate_only,
    )
    call = session.client.migrations.LiveMigrateInstance
    change_at_length(session, instances, call, request, no_wait=no_wait, words=_moved)


@noun.command("abort")
@instances_argument
@mutation_options
@pass_session
def abort(session: Session, /, *, instances: Sequence[str], **common: Any) -> None:
    """Stops migrations; the instances stay where they are."""
    request = partial(messages.AbortLiveMigrationRequest, **common)
    call = session.client.migrations.AbortLiveMigration
    change(session, instances, call, request, words=_aborted)


@noun.command("force")
@instances_argument
@click.option("--by", "method", type=EnumChoice(ForceCompleteMethod),
              help="How.  [default: post-copy where it was allowed, else pause]")  # fmt: skip
@mutation_options
@pass_session
def force(
    session: Session,
    /,
    *,
    instances: Sequence[str],
    method: ForceCompleteMethod.ValueType | None,
    **common: Any,
) -> None:
    """Makes migrations end that the guests outrun."""
    request = partial(messages.ForceCompleteLiveMigrationRequest, method=method or _ANY, **common)
    call = session.client.migrations.ForceCompleteLiveMigration
    change(session, instances, call, request, words=_forced)


@noun.command("watch")
@instance_argument
@click.option("--interval", type=Seconds(min_open=True), metavar="SECONDS",
              help="How often counters are shown.  [default: 1]")  # fmt: skip
@pass_session
def watch(session: Session, /, *, instance: str, interval: float | None) -> None:
    """Shows an instance's migration as it goes on, to its end."""
    request = messages.WatchMigrationRequest(
        instance_id=instance_id(session.client, instance), interval=duration(interval)
    )
    for response in session.client.migrations.WatchMigration(request):
        progress = response.progress
        session.output.element(progress, partial(_line, progress))


def _options(given: dict[str, Any]) -> LiveMigrationOptions:
    """What was given; the rest is the daemon's to choose."""
    said: dict[str, Any] = {
        name: duration(value) if name in _LENGTHS else value
        for name, value in given.items()
        if value is not None
    }
    return LiveMigrationOptions(**said)


def _moved(result: LiveMigrationResult) -> str:
    stood = f", stood still for {length(result.downtime)}" if result.HasField("downtime") else ""
    sent = byte_size(result.transferred_bytes)
    took = length(result.total_time)
    return f"is at {result.destination_uri} after {took}, {sent} sent{stood}"


def _aborted(response: messages.AbortLiveMigrationResponse) -> str:
    return "was aborted before" if response.already_aborted else "migration aborted"


def _forced(response: messages.ForceCompleteLiveMigrationResponse) -> str:
    if not response.method:
        return "had ended, or was forced before"
    return f"forced by {word(ForceCompleteMethod, response.method)}"


def _line(progress: MigrationProgress) -> str:
    parts = [word(MigrationPhase, progress.phase)]
    for name in ("memory", "disk"):
        if progress.HasField(name):
            parts.append(f"{name} {_counter(getattr(progress, name))}")
    if progress.dirty_rate_bytes_per_s:
        parts.append(f"changes {byte_size(progress.dirty_rate_bytes_per_s)}/s")
    if progress.HasField("error"):
        parts.append(f"{progress.error.reason}: {progress.error.message}")
    return "  ".join(parts)


def _counter(counter: MigrationCounter) -> str:
    return f"{byte_size(counter.remaining_bytes)} of {byte_size(counter.total_bytes)} left"
