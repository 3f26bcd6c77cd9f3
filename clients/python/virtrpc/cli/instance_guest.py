"""`instance set-password|inject-file|…`: what the guest agent does inside a guest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import click

from virtrpc.cli.change import change, duration
from virtrpc.cli.command import Verb, mutation_options, timeout_option
from virtrpc.cli.naming import instance_argument, instances_argument
from virtrpc.cli.session import Session, pass_session
from virtrpc.cli.standard_input import content, password
from virtrpc.v1 import instance_pb2 as messages

MAX_FILE_BYTES = 1024 * 1024


@click.command("set-password", cls=Verb)
@instance_argument
@click.option(
    "--user",
    "username",
    default="",
    metavar="TEXT",
    help="Account.  [default: root, or Administrator on Windows]",
)
@mutation_options
@pass_session
def set_password(session: Session, /, *, instance: str, **options: Any) -> None:
    """Sets a password in the guest: asked for, or standard input in a pipe."""
    request = partial(
        messages.SetAdminPasswordRequest, password=password("New password"), **options
    )
    call = session.client.instances.SetAdminPassword
    change(session, [instance], call, request, words=_always("password set"))


@click.command("inject-file", cls=Verb)
@instance_argument
@click.argument("path")
@mutation_options
@pass_session
def inject_file(session: Session, /, *, instance: str, path: str, **common: Any) -> None:
    """Writes standard input, at most 1 MiB, to PATH in the guest."""
    given = content(most_bytes=MAX_FILE_BYTES)
    request = partial(messages.InjectFileRequest, path=path, content=given, **common)
    call = session.client.instances.InjectFile
    change(
        session, [instance], call, request, words=_always(f"{len(given)} bytes written to {path}")
    )


@click.command("inject-network", cls=Verb)
@instances_argument
@mutation_options
@pass_session
def inject_network(session: Session, /, *, instances: Sequence[str], **common: Any) -> None:
    """Writes the network configuration of instances into their guests."""
    request = partial(messages.InjectNetworkInfoRequest, **common)
    call = session.client.instances.InjectNetworkInfo
    change(session, instances, call, request, words=_always("network configuration written"))


@click.command("reset-network", cls=Verb)
@instances_argument
@mutation_options
@pass_session
def reset_network(session: Session, /, *, instances: Sequence[str], **common: Any) -> None:
    """Makes guests apply their network configuration anew."""
    request = partial(messages.ResetInstanceNetworkRequest, **common)
    call = session.client.instances.ResetInstanceNetwork
    change(session, instances, call, request, words=_always("network configuration applied"))


@click.command("quiesce", cls=Verb)
@instances_argument
@timeout_option("Thawed by the daemon itself after this long.  [default: 60]")
@mutation_options
@pass_session
def quiesce(
    session: Session, /, *, instances: Sequence[str], timeout_s: float | None, **common: Any
) -> None:
    """Freezes the filesystems of guests."""
    request = partial(messages.QuiesceInstanceRequest, timeout=duration(timeout_s), **common)
    call = session.client.instances.QuiesceInstance
    change(session, instances, call, request, words=lambda reply: f"{_count(reply)} frozen")


@click.command("unquiesce", cls=Verb)
@instances_argument
@mutation_options
@pass_session
def unquiesce(session: Session, /, *, instances: Sequence[str], **common: Any) -> None:
    """Thaws the filesystems of guests."""
    request = partial(messages.UnquiesceInstanceRequest, **common)
    call = session.client.instances.UnquiesceInstance
    change(session, instances, call, request, words=lambda reply: f"{_count(reply)} thawed")


def _always(text: str) -> Callable[[Any], str]:
    return lambda _response: text


def _count(response: Any) -> str:
    count = response.filesystems
    return f"{count} filesystem" + ("" if count == 1 else "s")


VERBS = (set_password, inject_file, inject_network, reset_network, quiesce, unquiesce)
