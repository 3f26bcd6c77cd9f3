"""`migration cold|finish|confirm|revert`: instances change their host while they are off."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import IO, Any

import click
import yaml
from google.protobuf.json_format import ParseDict, ParseError

from virtrpc.cli.change import change, change_at_length, duration
from virtrpc.cli.command import mutation_options, no_wait_option
from virtrpc.cli.flavor import asked_flavor, flavor_options
from virtrpc.cli.naming import instances_argument
from virtrpc.cli.parameters import EnumChoice, Seconds
from virtrpc.cli.session import Session, pass_session
from virtrpc.cli.words import byte_size, length
from virtrpc.v1 import migration_pb2 as messages
from virtrpc.v1.migration_pb2 import MigrationStorage

migration_option = click.option(
    "--migration", "migration_id", default="", metavar="UUID",
    help="Only this migration.  [default: the instance's last]",
)  # fmt: skip


@click.command("cold")
@instances_argument
@click.option("--to", "destination_uri", required=True, metavar="URI",
              help="Daemon of the destination, e.g. grpc://host:50051.")  # fmt: skip
@flavor_options
@click.option("--storage", type=EnumChoice(MigrationStorage),
              help="How disks get there.  [default: as both hosts find out]")  # fmt: skip
@click.option("--bandwidth", "bandwidth_mib_per_s", type=click.IntRange(min=0), metavar="MIB/S",
              help="Most to be sent.")  # fmt: skip
@click.option("--timeout", type=Seconds(), metavar="SECONDS",
              help="How long the guest has to shut down; 0 forces.  [default: 60]")  # fmt: skip
@no_wait_option
@mutation_options
@pass_session
def cold(
    session: Session,
    /,
    *,
    instances: Sequence[str],
    storage: MigrationStorage.ValueType | None,
    timeout: float | None,
    no_wait: bool,
    **given: Any,
) -> None:
    """Shuts instances down and sends their disks to another host.

    With -o json it gives out what `migration finish` there is to be told.
    """

    def request(*, instance_id: str) -> messages.MigrateDiskAndPowerOffRequest:
        others = ("destination_uri", "bandwidth_mib_per_s", "request_id", "validate_only")
        return messages.MigrateDiskAndPowerOffRequest(
            instance_id=instance_id,
            flavor=asked_flavor(session, instance_id, given),
            storage=storage or MigrationStorage.MIGRATION_STORAGE_UNSPECIFIED,
            timeout=duration(timeout),
            **{name: given[name] for name in others if given[name] is not None},
        )

    call = session.client.migrations.MigrateDiskAndPowerOff
    change_at_length(session, instances, call, request, no_wait=no_wait, words=_sent)


@click.command("finish")
@click.argument("data", type=click.File("rb"))
@click.option("--start/--no-start", "power_on", default=True, help="[default: start]")
@no_wait_option
@mutation_options
@pass_session
def finish(session: Session, /, *, data: IO[bytes], no_wait: bool, **common: Any) -> None:
    """At the destination: makes an instance of the disks that have arrived.

    DATA is a file of what `migration cold -o json` gave out; - is standard input.
    """
    told = _read(data)
    request = partial(
        messages.FinishMigrationRequest, migration_id=told.migration_id, data=told, **common
    )
    call = session.client.migrations.FinishMigration
    change_at_length(session, [told.instance_id], call, request, no_wait=no_wait)


@click.command("confirm")
@instances_argument
@migration_option
@mutation_options
@pass_session
def confirm(
    session: Session, /, *, instances: Sequence[str], migration_id: str, **common: Any
) -> None:
    """At the source: deletes what was kept of instances that are at their destination."""

    def request(*, instance_id: str) -> messages.ConfirmMigrationRequest:
        named = migration_id or last_migration(session, instance_id)
        return messages.ConfirmMigrationRequest(
            instance_id=instance_id, migration_id=named, **common
        )

    change(
        session, instances, session.client.migrations.ConfirmMigration, request, words=_confirmed
    )


@click.command("revert")
@instances_argument
@migration_option
@click.option("--start/--no-start", "power_on", default=True, help="[default: start]")
@click.option("--destination-fenced", is_flag=True,
              help="The destination is off for good, and cannot be asked.")  # fmt: skip
@mutation_options
@pass_session
def revert(
    session: Session, /, *, instances: Sequence[str], migration_id: str, **common: Any
) -> None:
    """At the source: brings instances back as they were before."""

    def request(*, instance_id: str) -> messages.RevertMigrationRequest:
        named = migration_id or last_migration(session, instance_id)
        return messages.RevertMigrationRequest(
            instance_id=instance_id, migration_id=named, **common
        )

    change(session, instances, session.client.migrations.RevertMigration, request)


VERBS = (cold, finish, confirm, revert)


def last_migration(session: Session, instance_id: str) -> str:
    """The id of an instance's last migration; raises NotFoundError."""
    request = messages.WatchMigrationRequest(instance_id=instance_id)
    stream = session.client.migrations.WatchMigration(request)
    try:
        return str(next(iter(stream)).progress.migration_id)
    finally:
        stream.cancel()


def _read(file: IO[bytes]) -> messages.MigrationData:
    """The data in a response that was given out, or alone."""
    try:
        content = yaml.safe_load(file.read())
        document = content.get("data", content)
        return ParseDict(document, messages.MigrationData(), ignore_unknown_fields=True)
    except (yaml.YAMLError, ParseError, AttributeError) as error:
        raise click.FileError(file.name, "not what `migration cold -o json` gives out") from error


def _sent(result: messages.MigrateDiskAndPowerOffResponse) -> str:
    forced = ", forced off" if result.forced else ""
    sent, took = byte_size(result.transferred_bytes), length(result.total_time)
    return f"is off after {took}, {sent} sent{forced}: finish it at {result.data.destination_uri}"


def _confirmed(response: messages.ConfirmMigrationResponse) -> str:
    return "was confirmed before" if response.already_confirmed else "migration confirmed"
