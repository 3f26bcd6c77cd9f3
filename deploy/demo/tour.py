"""What is shown: a guest from its spawn to nothing, and all that streams back.

stream of events     CREATED  STARTED ─────────────── … ── STOPPED  DELETED
stream of progress   disks ─ define ─ start ─ done
stream of console                     "guest ready" ─ …
                                              │
                             once: destroy ◀──┴──▶ serve until stopped, destroy
"""

import asyncio
from collections.abc import Awaitable, Callable
from uuid import uuid4

from virtrpc.client import AsyncClient
from virtrpc.v1.event_pb2 import EventType
from virtrpc.v1.instance_pb2 import (
    DestroyInstanceRequest,
    ListInstancesRequest,
    SpawnInstanceRequest,
)
from virtrpc.v1.operation_pb2 import Operation
from virtrpc.v1.spec_pb2 import (
    Flavor,
    ImageSource,
    InstanceSpec,
    InterfaceSpec,
    UserModeNetwork,
)

from deploy.demo.lines import ConsoleLines, of_event, of_operation, show
from deploy.demo.place import IMAGE

NAME = "demo"
_MEMORY_MIB = 128
_READY = "virtrpc guest ready"
_LAST_EVENT_S = 5.0
_STREAM_MARKS = (EventType.EVENT_TYPE_SNAPSHOT, EventType.EVENT_TYPE_SNAPSHOT_END)


class Tour:
    """One guest and its streams. Belongs to one event loop; run it once."""

    def __init__(self, client: AsyncClient, *, once: bool, timeout_s: float) -> None:
        self.instance_id = str(uuid4())
        self._client = client
        self._once = once
        self._timeout_s = timeout_s
        self._watching = asyncio.Event()
        self._spoke = asyncio.Event()
        self._created = asyncio.Event()
        self._started = asyncio.Event()
        self._deleted = asyncio.Event()
        self._awaited = {
            EventType.EVENT_TYPE_CREATED: self._created,
            EventType.EVENT_TYPE_STARTED: self._started,
            EventType.EVENT_TYPE_DELETED: self._deleted,
        }
        self._shown = ""

    async def run(self, *, stop: asyncio.Event, serving: Callable[[], None]) -> None:
        """Returns when the guest is gone: after its first words if `once`, else after `stop`.

        `serving` is called in between. Raises an ExceptionGroup of what went
        wrong, TimeoutError among it.
        """
        async with asyncio.TaskGroup() as streams:
            events = streams.create_task(self._events())
            await first(self._booted(streams), stop.wait())
            if not (self._once or stop.is_set()):
                serving()
                await stop.wait()
            await destroy_all(self._client, self.instance_id)
            if self._created.is_set():  # else there was nothing to delete
                await first(self._deleted.wait(), asyncio.sleep(_LAST_EVENT_S))
            events.cancel()

    async def _booted(self, streams: asyncio.TaskGroup) -> None:
        """Spawns the guest; returns when it has started and its console has said so."""
        async with asyncio.timeout(self._timeout_s):
            await self._watching.wait()
            await self._spawn()
            streams.create_task(self._console())
            await self._started.wait()
            await self._spoke.wait()

    async def _spawn(self) -> None:
        spec = InstanceSpec(
            name=NAME,
            flavor=Flavor(vcpus=1, memory_mib=_MEMORY_MIB),
            image=ImageSource(image_id=IMAGE),
            interfaces=[InterfaceSpec(port_id=str(uuid4()), user=UserModeNetwork())],
        )
        request = SpawnInstanceRequest(instance_id=self.instance_id, spec=spec)
        spawn = await self._client.instances.SpawnInstance(request)
        async for operation in self._client.watch_operation(spawn.operation_id):
            self._show_operation(operation)
        await self._client.wait(spawn.operation_id)

    async def _events(self) -> None:
        async for event in self._client.watch_events(snapshot=True):
            self._watching.set()
            if event.type == EventType.EVENT_TYPE_OPERATION:
                self._show_operation(event.operation)
            elif event.type not in _STREAM_MARKS:
                show("event", of_event(event))
            if event.instance_id == self.instance_id and event.type in self._awaited:
                self._awaited[event.type].set()

    def _show_operation(self, operation: Operation) -> None:
        """Shows it unless it was shown like this: it comes on its own stream and as an event."""
        text = of_operation(operation)
        if text != self._shown:
            show("operation", text)
        self._shown = text

    async def _console(self) -> None:
        lines = ConsoleLines()
        async for message in self._client.follow_console(self.instance_id, offset=0):
            for line in lines.of(message.data.data):
                show("console", line)
                if line.startswith(_READY):
                    self._spoke.set()


async def destroy_all(client: AsyncClient, *instance_ids: str) -> None:
    """Destroys every instance there is, and these even where their spawn is still under way."""
    reply = await client.instances.ListInstances(ListInstancesRequest())
    for instance_id in {*instance_ids, *(instance.instance_id for instance in reply.instances)}:
        request = DestroyInstanceRequest(instance_id=instance_id, destroy_disks=True)
        await client.instances.DestroyInstance(request)


async def first(*works: Awaitable[object]) -> None:
    """Returns, or raises, as the first of them does; the others are cancelled."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            if task.done():
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
