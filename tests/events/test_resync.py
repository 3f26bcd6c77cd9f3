"""Who lists again when told to RESYNC is never told stale facts."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from virtrpc.v1.event_pb2 import (
    EVENT_TYPE_HYPERVISOR_CONNECTED,
    EVENT_TYPE_RESYNC,
    Event,
)
from virtrpc.v1.instance_pb2 import Instance

from service.console_watch import ConsoleWatch
from service.events.hub import Hub
from service.events.log import EventLog
from service.observer import HostObserver
from service.own.host import DaemonState
from service.truth import Truth

INSTANCE_ID = "11111111-1111-4111-8111-111111111111"


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[Hub]:
    made = Hub(EventLog(tmp_path / "events.sqlite"))
    yield made
    await made.release()


async def test_facts_are_fresh_and_whole_when_resync_is_told(hub: Hub) -> None:
    truth, seen = Truth(), list[tuple[int, bool, int]]()
    publish, consoles = hub.publish, ConsoleWatch()

    def published(event: Event) -> None:
        seen.append((event.type, truth.stale, len(truth)))
        publish(event)

    hub.publish = published  # type: ignore[method-assign]
    observer = HostObserver(
        truth=truth,
        hub=hub,
        daemon=DaemonState(backend="fake", version="", host_id="", node_name="n"),
        consoles=consoles,
        reachable=asyncio.Event(),
    )
    observer.instances_listed([Instance(instance_id=INSTANCE_ID)])
    observer.connected()
    await asyncio.sleep(0)
    consoles.close()
    assert seen == [
        (EVENT_TYPE_HYPERVISOR_CONNECTED, False, 1),
        (EVENT_TYPE_RESYNC, False, 1),
    ]
