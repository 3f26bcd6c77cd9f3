"""Who lists again when told to RESYNC is never told stale facts."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from virtrpc.v1.event_pb2 import (
    EVENT_TYPE_CREATED,
    EVENT_TYPE_DELETED,
    EVENT_TYPE_HYPERVISOR_CONNECTED,
    EVENT_TYPE_RESYNC,
    Event,
)
from virtrpc.v1.instance_pb2 import Instance

from backends.migration.book import MigrationBook
from service.consoles.connections import ConsoleConnections
from service.consoles.moves import Moves
from service.consoles.tokens import Tokens
from service.consoles.watch import ConsoleWatch
from service.events.hub import Hub
from service.events.log import EventLog
from service.observer import HostObserver
from service.own.host import DaemonState
from service.truth import Truth

INSTANCE_ID = "11111111-1111-4111-8111-111111111111"
CONNECTED = [(EVENT_TYPE_HYPERVISOR_CONNECTED, False, 1), (EVENT_TYPE_RESYNC, False, 1)]


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[Hub]:
    made = Hub(EventLog(tmp_path / "events.sqlite"))
    yield made
    await made.release()


class Seen:
    """An observer, and what it has published: the type, and what the truth was by then."""

    def __init__(self, hub: Hub, tokens: Tokens, book: MigrationBook) -> None:
        self.events: list[tuple[int, bool, int]] = []
        self.truth = Truth()
        self.reachable = asyncio.Event()
        self.consoles = ConsoleWatch()
        self._publish = hub.publish
        hub.publish = self._published  # type: ignore[method-assign]
        self.observer = HostObserver(
            truth=self.truth,
            hub=hub,
            daemon=DaemonState(backend="fake", version="", host_id="", node_name="n"),
            consoles=self.consoles,
            connections=ConsoleConnections(tokens, Moves(book)),
            reachable=self.reachable,
        )

    def _published(self, event: Event) -> None:
        self.events.append((event.type, self.truth.stale, len(self.truth)))
        self._publish(event)


@pytest.fixture
async def seen(hub: Hub, tmp_path: Path) -> AsyncIterator[Seen]:
    tokens = Tokens(tmp_path / "consoles.sqlite")
    made = Seen(hub, tokens, MigrationBook(tmp_path))
    yield made
    made.consoles.close()
    tokens.close()


async def test_facts_are_fresh_and_whole_when_resync_is_told(seen: Seen) -> None:
    seen.observer.opened()
    seen.observer.instances_listed([Instance(instance_id=INSTANCE_ID)])
    seen.observer.connected()
    await asyncio.sleep(0)
    assert seen.events == CONNECTED


async def test_facts_are_never_seen_without_the_event_that_made_them_so(
    seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who joins with a snapshot in between would be told what it shows."""
    turns: list[Callable[[], None]] = []
    created = Event(type=EVENT_TYPE_CREATED, instance_id=INSTANCE_ID)
    with monkeypatch.context() as patched:
        patched.setattr(asyncio.get_running_loop(), "call_soon_threadsafe", turns.append)
        seen.observer.instance_changed(Instance(instance_id=INSTANCE_ID), created)
        seen.observer.instance_gone(INSTANCE_ID, Event(type=EVENT_TYPE_DELETED))
    assert len(turns) == 2
    for turn in turns:
        turn()
    assert seen.events == [(EVENT_TYPE_CREATED, True, 1), (EVENT_TYPE_DELETED, True, 0)]


async def test_connection_is_told_when_mutations_are_taken_on(seen: Seen) -> None:
    """Who is told that the hypervisor is there must not be answered STARTING."""
    seen.observer.instances_listed([Instance(instance_id=INSTANCE_ID)])
    seen.observer.connected()
    await asyncio.sleep(0)
    assert seen.events == []
    assert not seen.reachable.is_set()
    seen.observer.opened()
    assert seen.events == CONNECTED
    assert seen.reachable.is_set()


async def test_connection_that_is_lost_before_is_not_told(seen: Seen) -> None:
    seen.observer.connected()
    seen.observer.disconnected("lost")
    await asyncio.sleep(0)
    seen.observer.opened()
    assert EVENT_TYPE_HYPERVISOR_CONNECTED not in [kind for kind, _, _ in seen.events]
    assert not seen.reachable.is_set()
