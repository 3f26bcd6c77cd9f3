"""Every way through an instance's life ends where the model says, and is told so."""

import uuid
from collections.abc import Callable, Iterator

import pytest
from virtrpc.v1 import event_pb2
from virtrpc.v1.event_pb2 import Event, EventCursor

from tests.daemon import Connection, DaemonProcess
from tests.events_seen import cursor_now, events_after
from tests.instances import destroyed
from tests.model.life import Life
from tests.model.observed import observable
from tests.model.verbs import FAMILIES, VERBS, outcome, walk, wander
from tests.model.walker import Walker

_STEPS = 300


@pytest.fixture(scope="module")
def model_daemon(model_daemons: Callable[[str], DaemonProcess]) -> DaemonProcess:
    """A fake with nothing on it."""
    return model_daemons("fake")


@pytest.fixture
def walker(model_daemon: DaemonProcess) -> Iterator[Walker]:
    """An instance that is not there yet, and is not when the test has ended."""
    with model_daemon.connect() as connection:
        instance_id = str(uuid.uuid4())
        yield Walker(model_daemon, connection, instance_id)
        destroyed(connection, instance_id)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_way_through_a_life_is_the_model_s(walker: Walker, family: str) -> None:
    for number, verb in enumerate(walk(FAMILIES[family])):
        before = observable(walker.life)
        walker.only_ask(verb)
        assert walker.seen() == before, f"{verb} only asked about"
        walker.go(verb)
        if number % 3 == 0:
            walker.spend()


def test_a_way_by_chance_through_all_families_is_the_model_s(walker: Walker, seed: str) -> None:
    for number, verb in enumerate(wander(VERBS, seed=seed, steps=_STEPS)):
        walker.go(verb)
        if number % 3 == 0:
            walker.spend()


def test_who_only_watches_is_told_every_state(walker: Walker, connection: Connection) -> None:
    told = 0
    for verb in walk(FAMILIES["life"]):
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
    assert told > len(FAMILIES["life"])


def _reaches(end: EventCursor) -> Callable[[Event], bool]:
    return lambda event: event.cursor.sequence >= end.sequence


@pytest.fixture
def connection(model_daemon: DaemonProcess) -> Iterator[Connection]:
    """A connection of the test's own."""
    with model_daemon.connect() as connected:
        yield connected


@pytest.mark.parametrize("family", FAMILIES)
def test_the_walk_goes_every_way(family: str) -> None:
    verbs = FAMILIES[family]
    gone: set[tuple[Life | None, str]] = set()
    life: Life | None = None
    for verb in walk(verbs):
        gone.add((life, verb))
        life = outcome(life, verb)
    lives = {life for life, _ in gone}
    assert gone == {(life, verb) for life in lives for verb in verbs}
    assert len(lives) >= len(verbs) / 2
