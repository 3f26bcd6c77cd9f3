"""Changes of instances: a call for each one named, and a line that tells what it did.

One that fails does not keep the others from it; the exit code is that of the
first failure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click
from google.protobuf.duration_pb2 import Duration

from virtrpc.cli.failure import exit_code
from virtrpc.cli.long_running import CHECKED, ended
from virtrpc.cli.naming import instance_id
from virtrpc.cli.session import Session
from virtrpc.cli.structure import structure
from virtrpc.cli.words import word
from virtrpc.errors import ServiceError
from virtrpc.v1.instance_pb2 import Instance
from virtrpc.v1.operation_pb2 import Operation
from virtrpc.v1.types_pb2 import PowerState

# What people are told of a response.
Words = Callable[[Any], str]


def state_of(instance: Instance) -> str:
    """The state that an instance is in."""
    return word(PowerState, instance.power_state)


def state_after(response: Any) -> str:
    """The state that a response's instance is in afterwards."""
    forced = " (forced)" if getattr(response, "forced", False) else ""
    return state_of(response.instance) + forced


def change(
    session: Session,
    names: Sequence[str],
    call: Callable[[Any], Any],
    request: Callable[..., Any],
    *,
    words: Words = state_after,
) -> None:
    """Calls for each instance and tells what `words` makes of the response.

    `request` is given the `instance_id`. Responses are elements of a stream, each
    with its instance_id.
    """

    def act(name: str) -> None:
        id_ = instance_id(session.client, name)
        made = request(instance_id=id_)
        with _giving_up(id_):
            response = call(made)
        # A read has no validate_only.
        done = CHECKED if getattr(made, "validate_only", False) else words(response)
        document = {"instance_id": id_, **structure(response)}
        session.output.element(document, lambda: f"{name}: {done}")
        for volume_id in getattr(response, "bad_volume_ids", ()):
            session.note(f"{name}: volume {volume_id} did not come back")

    each(session, names, act)


def change_at_length(
    session: Session,
    names: Sequence[str],
    call: Callable[[Any], Operation],
    request: Callable[..., Any],
    *,
    no_wait: bool,
    words: Words = state_of,
) -> None:
    """As `change`, of a verb that is an operation: one instance after the other.

    `words` are of the operation's result; with `no_wait` the operations are told.
    """

    def act(name: str) -> None:
        id_ = instance_id(session.client, name)
        made = request(instance_id=id_)
        with _giving_up(id_):
            operation = call(made)
        end = ended(session, operation, checked=made.validate_only, no_wait=no_wait, words=words)
        session.output.element(end.document, lambda: f"{name}: {end.text}")

    each(session, names, act)


def each(session: Session, names: Sequence[str], act: Callable[[str], None]) -> None:
    """Acts on each thing that is named, whatever becomes of the others.

    Exits with the code of the first failure.
    """
    failures = []
    for name in names:
        try:
            act(name)
        except ServiceError as error:
            if len(names) > 1:
                session.note(f"{name}:")
            session.report(error)
            failures.append(error)
    if failures:
        raise click.exceptions.Exit(exit_code(failures[0]))


def duration(seconds: float | None) -> Duration | None:
    """Seconds as a message; None as none."""
    if seconds is None:
        return None
    made = Duration()
    made.FromNanoseconds(int(seconds * 1e9))
    return made


@contextmanager
def _giving_up(id_: str) -> Iterator[None]:
    """After Ctrl-C says that the daemon goes on with what was begun."""
    try:
        yield
    except KeyboardInterrupt:
        click.echo("given up: what was begun goes on", err=True)
        click.echo(f"  look: virtrpc operation list --instance {id_}", err=True)
        raise
