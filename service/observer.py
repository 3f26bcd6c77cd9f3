"""Takes in what the backend tells, on the event loop: truth, events and connection."""

import asyncio
from collections.abc import Callable, Sequence

import structlog
from virtrpc.v1 import host_pb2
from virtrpc.v1.event_pb2 import Event, EventType
from virtrpc.v1.instance_pb2 import Instance
from virtrpc.v1.operation_pb2 import Operation

from service import audit
from service.consoles.connections import ConsoleConnections
from service.consoles.watch import ConsoleWatch
from service.events.hub import Hub
from service.own.host import DaemonState
from service.truth import Truth
from service.verbs import host_verb_names

log = structlog.get_logger()


class HostObserver:
    """A backends.contract.Observer and an operations.runner.Listener.

    The backend calls it on its own threads; everything is handed to the loop, in
    order, so that facts told before a verb returns are seen before its reply.
    """

    def __init__(
        self,
        *,
        truth: Truth,
        hub: Hub,
        daemon: DaemonState,
        consoles: ConsoleWatch,
        connections: ConsoleConnections,
        reachable: asyncio.Event,
    ) -> None:
        self._truth = truth
        self._hub = hub
        self._daemon = daemon
        self._consoles = consoles
        self._connections = connections
        self._reachable = reachable
        self._host_verbs = host_verb_names()
        self._open = False
        self._tell_connected = False
        self._loop = asyncio.get_running_loop()

    # Called by the backend, on any thread.

    def instances_listed(self, instances: Sequence[Instance]) -> None:
        """See Observer."""
        self._hand_over(lambda: self._listed(instances))

    def instance_changed(self, instance: Instance, event: Event | None = None) -> None:
        """See Observer."""
        self._hand_over(lambda: self._changed(instance, event))

    def instance_gone(self, instance_id: str, event: Event | None = None) -> None:
        """See Observer."""
        self._hand_over(lambda: self._gone(instance_id, event))

    def event(self, event: Event) -> None:
        """See Observer."""
        self._hand_over(lambda: self._hub.publish(event))

    def connected(self) -> None:
        """See Observer."""
        self._hand_over(self._connected)

    def disconnected(self, reason: str) -> None:
        """See Observer."""
        self._hand_over(lambda: self._disconnected(reason))

    # Called by the daemon, on the loop.

    def opened(self) -> None:
        """Mutations are taken on from here: a connection until now is told now, and no sooner."""
        self._open = True
        if self._tell_connected:
            self._connected()

    # Called by the operations, on the loop.

    def operation_changed(self, operation: Operation) -> None:
        """See Listener."""
        if operation.instance_id:
            truth = self._truth
            tell = truth.operation_ended if operation.done else truth.operation_goes_on
            tell(operation.instance_id, operation.operation_id)
        if operation.done:
            audit.ended(operation)
        if operation.verb in self._host_verbs:
            self._daemon.operation_id = "" if operation.done else operation.operation_id
        told = Operation()
        told.CopyFrom(operation)
        told.ClearField("steps")
        told.ClearField("result")
        self._hub.publish(
            Event(
                type=EventType.EVENT_TYPE_OPERATION,
                instance_id=operation.instance_id,
                operation=told,
            )
        )

    def _hand_over(self, call: Callable[[], None]) -> None:
        self._loop.call_soon_threadsafe(call)

    def _listed(self, instances: Sequence[Instance]) -> None:
        self._truth.replace_all(instances)
        self._consoles.wake_all()
        self._connections.settle_all(instances)

    def _changed(self, instance: Instance, event: Event | None) -> None:
        self._truth.put(instance)
        if event is not None:
            self._hub.publish(event)
        self._connections.settle(instance)

    def _gone(self, instance_id: str, event: Event | None) -> None:
        self._truth.remove(instance_id)
        if event is not None:
            self._hub.publish(event)
        self._consoles.wake_all()
        self._connections.gone(instance_id)

    def _connected(self) -> None:
        self._tell_connected = not self._open
        if self._tell_connected:
            return
        log.info("hypervisor connected")
        self._truth.connected()
        self._daemon.connection_is(host_pb2.HYPERVISOR_CONNECTION_STATE_CONNECTED)
        self._hub.publish(Event(type=EventType.EVENT_TYPE_HYPERVISOR_CONNECTED))
        # After the truth is fresh: who lists again at a RESYNC must not be told stale facts.
        self._hub.publish(Event(type=EventType.EVENT_TYPE_RESYNC))
        self._reachable.set()

    def _disconnected(self, reason: str) -> None:
        log.warning("hypervisor lost", reason=reason)
        self._tell_connected = False
        self._reachable.clear()
        self._truth.disconnected()
        self._daemon.connection_is(host_pb2.HYPERVISOR_CONNECTION_STATE_LOST, error=reason)
        self._hub.publish(Event(type=EventType.EVENT_TYPE_HYPERVISOR_DISCONNECTED, detail=reason))
