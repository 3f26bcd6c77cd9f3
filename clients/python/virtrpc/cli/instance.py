"""`instance`: its life."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Union

import click
from google.protobuf.duration_pb2 import Duration

from virtrpc.cli import instance_view
from virtrpc.cli.command import Noun, mutation_options
from virtrpc.cli.failure import exit_code
from virtrpc.cli.naming import INSTANCE, instance_id
from virtrpc.cli.parameters import PAIR, EnumChoice
from virtrpc.cli.session import Session, pass_session
from virtrpc.cli.spawn import spawn
from virtrpc.cli.structure import structure
from virtrpc.cli.words import word
from virtrpc.errors import ServiceError
from virtrpc.paging import pages
from virtrpc.v1 import instance_pb2 as messages
from virtrpc.v1.types_pb2 import PowerState

# Replies that say how the instance is afterwards.
Changed = Union[
    messages.PowerOnInstanceResponse,
    messages.PowerOffInstanceResponse,
    messages.RebootInstanceResponse,
    messages.PauseInstanceResponse,
    messages.UnpauseInstanceResponse,
]
instances_argument = click.argument("instances", nargs=-1, required=True, type=INSTANCE)


@click.group(cls=Noun)
def noun() -> None:
    """The instances of the host; named by their names or UUIDs."""


noun.add_command(spawn)


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
@click.argument("instance", type=INSTANCE)
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


@noun.command("destroy")
@instances_argument
@click.option("--keep-disks", is_flag=True, help="Keep its disks, files and secrets.")
@mutation_options
@pass_session
def destroy(
    session: Session, /, *, instances: Sequence[str], keep_disks: bool, **common: Any
) -> None:
    """Stops instances at once and removes them, disks and all."""

    def act(name: str, id_: str) -> None:
        request = messages.DestroyInstanceRequest(
            instance_id=id_, destroy_disks=not keep_disks, destroy_secrets=not keep_disks, **common
        )
        response = session.client.instances.DestroyInstance(request)
        done = "did not exist" if response.already_gone else "destroyed"
        _tell(session, id_, response, name, _checked(request) or done)

    _each(session, instances, act)


@noun.command("start")
@instances_argument
@mutation_options
@pass_session
def start(session: Session, /, *, instances: Sequence[str], **common: Any) -> None:
    """Starts instances that are off."""
    _change(
        session,
        instances,
        session.client.instances.PowerOnInstance,
        lambda id_: messages.PowerOnInstanceRequest(instance_id=id_, **common),
    )


@noun.command("stop")
@instances_argument
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="How long the guest has before it is forced.  [default: 60]",
)
@click.option("--force", is_flag=True, help="Do not ask the guest: as --timeout 0.")
@mutation_options
@pass_session
def stop(
    session: Session,
    /,
    *,
    instances: Sequence[str],
    timeout_s: float | None,
    force: bool,
    **common: Any,
) -> None:
    """Shuts instances down; they keep what they have."""
    timeout = _duration(0.0 if force else timeout_s)
    _change(
        session,
        instances,
        session.client.instances.PowerOffInstance,
        lambda id_: messages.PowerOffInstanceRequest(instance_id=id_, timeout=timeout, **common),
    )


@noun.command("reboot")
@instances_argument
@click.option("--soft", "kind", flag_value="soft", help="Ask the guest first.")
@click.option("--hard", "kind", flag_value="hard", help="Reset the machine.  [default]")
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="How long the guest has for --soft.  [default: 60]",
)
@mutation_options
@pass_session
def reboot(
    session: Session,
    /,
    *,
    instances: Sequence[str],
    kind: str | None,
    timeout_s: float | None,
    **common: Any,
) -> None:
    """Restarts instances; those that are off or paused too."""
    type_ = messages.REBOOT_TYPE_SOFT if kind == "soft" else messages.REBOOT_TYPE_HARD
    timeout = _duration(timeout_s)
    _change(
        session,
        instances,
        session.client.instances.RebootInstance,
        lambda id_: messages.RebootInstanceRequest(
            instance_id=id_, type=type_, timeout=timeout, **common
        ),
    )


@noun.command("pause")
@instances_argument
@mutation_options
@pass_session
def pause(session: Session, /, *, instances: Sequence[str], **common: Any) -> None:
    """Stops the virtual CPUs of instances; they keep their memory."""
    _change(
        session,
        instances,
        session.client.instances.PauseInstance,
        lambda id_: messages.PauseInstanceRequest(instance_id=id_, **common),
    )


@noun.command("unpause")
@instances_argument
@mutation_options
@pass_session
def unpause(session: Session, /, *, instances: Sequence[str], **common: Any) -> None:
    """Lets paused instances run on."""
    _change(
        session,
        instances,
        session.client.instances.UnpauseInstance,
        lambda id_: messages.UnpauseInstanceRequest(instance_id=id_, **common),
    )


def _change(
    session: Session,
    names: Sequence[str],
    call: Callable[[Any], Changed],
    request: Callable[[str], Any],
) -> None:
    """Calls for each instance and tells how it is afterwards."""

    def act(name: str, id_: str) -> None:
        made = request(id_)
        response = call(made)
        done = word(PowerState, response.instance.power_state)
        forced = " (forced)" if getattr(response, "forced", False) else ""
        _tell(session, id_, response, name, _checked(made) or done + forced)
        for volume_id in getattr(response, "bad_volume_ids", ()):
            session.note(f"{name}: volume {volume_id} did not come back")

    _each(session, names, act)


def _each(session: Session, names: Sequence[str], act: Callable[[str, str], None]) -> None:
    """Acts on each instance by name and id; one that fails does not keep the others from it.

    Exits with the code of the first failure.
    """
    failures = []
    for name in names:
        try:
            id_ = instance_id(session.client, name)
            with _giving_up(id_):
                act(name, id_)
        except ServiceError as error:
            session.report(error)
            failures.append(error)
    if failures:
        raise click.exceptions.Exit(exit_code(failures[0]))


@contextmanager
def _giving_up(id_: str) -> Iterator[None]:
    """After Ctrl-C says that the daemon goes on with what was begun."""
    try:
        yield
    except KeyboardInterrupt:
        click.echo("given up: what was begun goes on", err=True)
        click.echo(f"  look: virtrpc operation list --instance {id_}", err=True)
        raise


def _tell(session: Session, id_: str, response: Any, name: str, done: str) -> None:
    document = {"instance_id": id_, **structure(response)}
    session.output.element(document, lambda: f"{name}: {done}")


def _checked(request: Any) -> str:
    return "nothing stands in the way" if request.validate_only else ""


def _duration(seconds: float | None) -> Duration | None:
    if seconds is None:
        return None
    duration = Duration()
    duration.FromNanoseconds(int(seconds * 1e9))
    return duration
