"""`instance start|stop|…`: the power of instances, and the verbs that take it away."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import click

from virtrpc.cli.change import change, change_at_length, duration
from virtrpc.cli.command import Verb, mutation_options, no_wait_option, timeout_option
from virtrpc.cli.naming import instances_argument
from virtrpc.cli.session import Session, pass_session
from virtrpc.v1 import instance_pb2 as messages


@click.command("start", cls=Verb)
@instances_argument
@mutation_options
@pass_session
def start(session: Session, /, *, instances: Sequence[str], **common: Any) -> None:
    """Starts instances that are off."""
    request = partial(messages.PowerOnInstanceRequest, **common)
    change(session, instances, session.client.instances.PowerOnInstance, request)


@click.command("stop", cls=Verb)
@instances_argument
@timeout_option("How long the guest has before it is forced.  [default: 60]")
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
    timeout = duration(0.0 if force else timeout_s)
    request = partial(messages.PowerOffInstanceRequest, timeout=timeout, **common)
    change(session, instances, session.client.instances.PowerOffInstance, request)


@click.command("reboot", cls=Verb)
@instances_argument
@click.option("--soft", "kind", flag_value="soft", help="Ask the guest first.")
@click.option("--hard", "kind", flag_value="hard", help="Reset the machine.  [default]")
@timeout_option("How long the guest has for --soft.  [default: 60]")
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
    request = partial(
        messages.RebootInstanceRequest, type=type_, timeout=duration(timeout_s), **common
    )
    change(session, instances, session.client.instances.RebootInstance, request)


@click.command("pause", cls=Verb)
@instances_argument
@mutation_options
@pass_session
def pause(session: Session, /, *, instances: Sequence[str], **common: Any) -> None:
    """Stops the virtual CPUs of instances; they keep their memory."""
    request = partial(messages.PauseInstanceRequest, **common)
    change(session, instances, session.client.instances.PauseInstance, request)


@click.command("unpause", cls=Verb)
@instances_argument
@mutation_options
@pass_session
def unpause(session: Session, /, *, instances: Sequence[str], **common: Any) -> None:
    """Lets paused instances run on."""
    request = partial(messages.UnpauseInstanceRequest, **common)
    change(session, instances, session.client.instances.UnpauseInstance, request)


@click.command("suspend", cls=Verb)
@instances_argument
@no_wait_option
@mutation_options
@pass_session
def suspend(session: Session, /, *, instances: Sequence[str], no_wait: bool, **common: Any) -> None:
    """Saves the memory of instances to disk and frees it."""
    request = partial(messages.SuspendInstanceRequest, **common)
    call = session.client.instances.SuspendInstance
    change_at_length(session, instances, call, request, no_wait=no_wait)


@click.command("resume", cls=Verb)
@instances_argument
@no_wait_option
@mutation_options
@pass_session
def resume(session: Session, /, *, instances: Sequence[str], no_wait: bool, **common: Any) -> None:
    """Starts suspended instances where they were."""
    request = partial(messages.ResumeInstanceRequest, **common)
    call = session.client.instances.ResumeInstance
    change_at_length(session, instances, call, request, no_wait=no_wait)


@click.command("crash-dump", cls=Verb)
@instances_argument
@mutation_options
@pass_session
def crash_dump(session: Session, /, *, instances: Sequence[str], **common: Any) -> None:
    """Sends guests a non-maskable interrupt: most crash, and dump if set up to."""
    request = partial(messages.TriggerCrashDumpRequest, **common)
    call = session.client.instances.TriggerCrashDump
    change(session, instances, call, request, words=lambda _response: "interrupted")


@click.command("set-bootable", cls=Verb)
@instances_argument
@click.argument("bootable", type=click.Choice(("yes", "no")))
@mutation_options
@pass_session
def set_bootable(
    session: Session, /, *, instances: Sequence[str], bootable: str, **common: Any
) -> None:
    """Says whether instances may be powered on at all."""
    request = partial(messages.SetInstanceBootableRequest, bootable=bootable == "yes", **common)
    call = session.client.instances.SetInstanceBootable
    change(session, instances, call, request, words=_bootable)


def _bootable(response: messages.SetInstanceBootableResponse) -> str:
    return "may be powered on" if response.instance.bootable else "may not be powered on"


VERBS = (start, stop, reboot, pause, unpause, suspend, resume, crash_dump, set_bootable)
