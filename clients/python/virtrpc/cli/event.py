"""`event`: what happens on the host."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import click

from virtrpc.cli.command import Noun
from virtrpc.cli.naming import INSTANCE, instance_id
from virtrpc.cli.parameters import CURSOR, EnumChoice
from virtrpc.cli.session import Session, pass_session
from virtrpc.cli.words import clock, word
from virtrpc.v1.event_pb2 import Event, EventCursor, EventType
from virtrpc.v1.operation_pb2 import OperationState
from virtrpc.v1.types_pb2 import PowerState


@click.group(cls=Noun)
def noun() -> None:
    """What happens on the host, as it happens."""


@noun.command("watch")
@click.option("--snapshot", is_flag=True, help="First every instance as it is.")
@click.option("--type", "types", type=EnumChoice(EventType), multiple=True, help="Repeatable.")
@click.option("--instance", "instances", type=INSTANCE, multiple=True, help="Repeatable.")
@click.option("--after", type=CURSOR, help="Resume after this event.")
@pass_session
def watch(
    session: Session,
    /,
    *,
    snapshot: bool,
    types: Sequence[EventType.ValueType],
    instances: Sequence[str],
    after: EventCursor | None,
) -> None:
    """Shows events until Ctrl-C; goes on after a restart of the daemon."""
    last = after
    try:
        for event in session.client.watch_events(
            after=after,
            snapshot=snapshot,
            types=types,
            instance_ids=[instance_id(session.client, name) for name in instances],
            on_retry=session.note_retry,
        ):
            session.output.element(event, partial(line, event))
            last = event.cursor
    except KeyboardInterrupt:
        if last is not None:
            session.note(f"resume with --after {last.epoch}:{last.sequence}")
        raise


def line(event: Event) -> str:
    """An event in a line: when, what, which instance, what else."""
    words = (
        clock(event.time),
        f"{word(EventType, event.type):<16}",
        event.instance_name,
        event.instance_id,
        word(PowerState, event.power_state) if event.power_state else "",
        event.detail,
        _operation(event) if event.HasField("operation") else "",
        _loss(event) if event.type == EventType.EVENT_TYPE_GAP else "",
    )
    return " ".join(filter(None, words))


def _operation(event: Event) -> str:
    operation = event.operation
    words = (operation.verb, word(OperationState, operation.state), operation.operation_id)
    return " ".join(words)


def _loss(event: Event) -> str:
    lost = str(event.lost) if event.lost else "an unknown number of"
    return f"{lost} events are lost: list again what you keep of the host"
