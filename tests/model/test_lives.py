"""Every way through an instance's life ends where the model says, and is told so."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from virtrpc.v1 import event_pb2, instance_pb2
from virtrpc.v1.event_pb2 import Event, EventCursor
from virtrpc.v1.operation_pb2 import Operation

from tests.daemon import Connection, DaemonProcess
from tests.events_seen import cursor_now, events_after
from tests.instances import TIMEOUT_S, finished, small_spec
from tests.model.life import VERBS, Life, RefusedError, after, outcome, walk
from tests.refusals import refusal_of

INSTANCE_ID = "aaaaaaaa-0000-4000-8000-000000000001"
FIELDS: dict[str, dict[str, Any]] = {
    "SpawnInstance": {"spec": small_spec(backend="fake", name="walker")},
    "PowerOffInstance": {"timeout": {"seconds": 0}},
    "RebootInstance": {"type": instance_pb2.REBOOT_TYPE_HARD},
    "DestroyInstance": {"destroy_disks": True},
}


@pytest.fixture
def connection(
    short_folder: Callable[[], Path], guest_images: Callable[[DaemonProcess], None]
) -> Iterator[Connection]:
    """A daemon with nothing on it."""
    with DaemonProcess(short_folder(), backend="fake") as daemon:
        guest_images(daemon)
        with daemon.start().connect() as connected:
            yield connected


class Walker:
    """An instance, and what the model makes of it."""

    def __init__(self, connection: Connection) -> None:
        self.life: Life | None = None
        self._connection = connection

    def only_ask(self, verb: str) -> None:
        """Asks whether a verb could be; the answer is that of the model, and nothing changes."""
        self._judge(verb, self._answer(verb, validate_only=True))

    def go(self, verb: str) -> None:
        """Calls a verb; answer and effect are those of the model."""
        self._judge(verb, self._answer(verb))
        self.life = outcome(self.life, verb)

    def listed(self) -> Life | None:
        """The instance as the daemon lists it."""
        request = instance_pb2.ListInstancesRequest(include_soft_deleted=True)
        instances = self._connection.instances.ListInstances(request, timeout=TIMEOUT_S).instances
        lives = [Life(i.power_state, i.bootable, i.HasField("reclaim_at")) for i in instances]
        return lives[0] if lives else None

    def _judge(self, verb: str, answer: str) -> None:
        try:
            after(self.life, verb)
        except RefusedError as refused:
            assert answer in refused.args, (verb, self.life)
        else:
            assert answer == "", (verb, self.life)

    def _answer(self, verb: str, **more: Any) -> str:
        """The reason for which a verb is refused; empty: it succeeds."""
        toggled = {"bootable": not (self.life and self.life.bootable)}
        fields = toggled if verb == "SetInstanceBootable" else FIELDS.get(verb, {})
        request = getattr(instance_pb2, f"{verb}Request")(instance_id=INSTANCE_ID, **fields, **more)
        try:
            answer = getattr(self._connection.instances, verb)(request, timeout=TIMEOUT_S)
        except grpc.RpcError as error:
            return refusal_of(error).reason
        if isinstance(answer, Operation) and answer.operation_id:
            return finished(self._connection, answer).error.reason
        return ""


def test_every_way_through_a_life_is_the_model_s(connection: Connection) -> None:
    walker = Walker(connection)
    for verb in walk():
        before = walker.life
        walker.only_ask(verb)
        assert walker.listed() == before, f"{verb} only asked about"
        walker.go(verb)
        assert walker.listed() == walker.life, (verb, before)


def test_who_only_watches_is_told_every_state(connection: Connection) -> None:
    walker, told = Walker(connection), 0
    for verb in walk():
        cursor, before = cursor_now(connection), walker.life
        walker.go(verb)
        end = cursor_now(connection)
        seen = events_after(connection, cursor, until=_reaches(end))
        sequences = [event.cursor.sequence for event in seen]
        assert sequences == list(range(cursor.sequence + 1, end.sequence + 1))
        states = [event.power_state for event in seen if event.power_state]
        if walker.life is None:
            assert before is None or event_pb2.EVENT_TYPE_DELETED in [e.type for e in seen]
        elif before is None or before.state != walker.life.state:
            assert states[-1] == walker.life.state, (verb, before)
            told += 1
    assert told > len(VERBS)


def _reaches(end: EventCursor) -> Callable[[Event], bool]:
    return lambda event: event.cursor.sequence >= end.sequence


def test_the_walk_goes_every_way() -> None:
    gone: set[tuple[Life | None, str]] = set()
    life: Life | None = None
    for verb in walk():
        gone.add((life, verb))
        life = outcome(life, verb)
    lives = {life for life, _ in gone}
    assert gone == {(life, verb) for life in lives for verb in VERBS}
    assert len(lives) > 10
