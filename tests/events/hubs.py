"""A hub over a log on disk, for tests of it alone."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from virtrpc.v1.event_pb2 import Event, EventType

from service.events.hub import Hub, Published, Watcher
from service.events.log import EventLog

WAIT_S = 10.0


@asynccontextmanager
async def hub_in(folder: Path) -> AsyncIterator[Hub]:
    """A hub whose log is in `folder`; closed in the end."""
    hub = Hub(EventLog(folder / "events.sqlite"))
    try:
        yield hub
    finally:
        await hub.close()
        await hub.release()


def publish(hub: Hub, count: int) -> None:
    """Publishes as many events; each says its place in `detail`."""
    for number in range(count):
        hub.publish(Event(type=EventType.EVENT_TYPE_STARTED, detail=str(number)))


def everything(_event: Event) -> bool:
    """What a watcher without filters wants."""
    return True


async def take(watcher: Watcher, count: int) -> list[Published]:
    """The next events of a watcher."""
    taken: list[Published] = []
    while len(taken) < count:
        published = await watcher.next(sent=0, timeout_s=WAIT_S)
        assert published is not None, f"only {len(taken)} of {count} events came"
        taken.append(published)
    return taken


def numbers(published: list[Published]) -> list[int]:
    """Their sequences."""
    return [one.sequence for one in published]
