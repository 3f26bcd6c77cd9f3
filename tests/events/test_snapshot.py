"""Snapshot, then follow: whoever joins at any moment ends up with the truth."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from virtrpc.v1 import event_pb2, instance_pb2
from virtrpc.v1.event_pb2 import Event, WatchEventsRequest

from tests.daemon import Connection, DaemonProcess
from tests.events.controllers import TIMEOUT_S, contiguous, destroy, spawn, toggle, watch
from tests.events_seen import cursor_now

States = dict[str, int]
LIFECYCLE_BEFORE = event_pb2.EVENT_TYPE_DEVICE_ADDED


class Model:
    """What a watcher makes of the stream: power states by instance."""

    def __init__(self) -> None:
        self.states: States = {}
        self.followed: list[Event] = []
        self.contradictions: list[Event] = []
        self.snapshot_end = 0

    def take(self, event: Event) -> None:
        """Applies an event; remembers one that the snapshot contradicts."""
        known = event.instance_id in self.states
        if event.type == event_pb2.EVENT_TYPE_SNAPSHOT:
            self.states[event.instance_id] = event.power_state
            return
        if event.type == event_pb2.EVENT_TYPE_SNAPSHOT_END:
            self.snapshot_end = event.cursor.sequence
            return
        if event.type == event_pb2.EVENT_TYPE_HEARTBEAT:
            return
        self.followed.append(event)
        if event.type == event_pb2.EVENT_TYPE_DELETED:
            self.contradictions += [] if known else [event]
            self.states.pop(event.instance_id, None)
        elif event.type < LIFECYCLE_BEFORE:
            wrong = known == (event.type == event_pb2.EVENT_TYPE_CREATED)
            self.contradictions += [event] if wrong else []
            self.states[event.instance_id] = event.power_state


def test_snapshots_taken_amid_changes_are_joined_without_loss_or_contradiction(
    make_daemon: Callable[..., DaemonProcess],
) -> None:
    with make_daemon().start() as daemon:
        busy = threading.Event()
        busy.set()
        with ThreadPoolExecutor(24) as pool:
            controllers = [pool.submit(change, daemon, busy) for _ in range(4)]
            joined = [pool.submit(join, daemon, after=7 * number) for number in range(20)]
            waits = [future.result() for future in joined]
            busy.clear()
            for controller in controllers:
                controller.result()
            with daemon.connect() as connection:
                truth, end = states(connection), cursor_now(connection).sequence
            models = [pool.submit(finish, end).result() for finish in waits]
        for model in models:
            assert model.states == truth
            assert model.contradictions == []
            assert contiguous(model.followed, after=model.snapshot_end)


def change(daemon: DaemonProcess, busy: threading.Event) -> None:
    """Spawns, toggles and destroys for as long as it is asked to; leaves one instance."""
    with daemon.connect() as connection:
        while busy.is_set():
            instance_id = spawn(connection)
            toggle(connection, instance_id)
            destroy(connection, instance_id)
        spawn(connection)


def join(daemon: DaemonProcess, *, after: int) -> Callable[[int], Model]:
    """Joins after some events; gives what takes the rest of the stream, up to a sequence."""
    connection = daemon.connect()
    pass_by = watch(connection, WatchEventsRequest())
    for _ in range(after):
        next(pass_by)
    stream = watch(connection, WatchEventsRequest(snapshot=True))
    model = Model()
    for event in stream:
        model.take(event)
        if len(model.followed) >= 40:
            break

    def finish(end: int) -> Model:
        for event in stream:
            model.take(event)
            if event.cursor.sequence >= end:
                break
        connection.close()
        return model

    return finish


def states(connection: Connection) -> States:
    """The truth."""
    reply = connection.instances.ListInstances(
        instance_pb2.ListInstancesRequest(), timeout=TIMEOUT_S
    )
    return {instance.instance_id: instance.power_state for instance in reply.instances}


def test_snapshot_of_an_empty_host_is_its_end_alone(
    make_daemon: Callable[..., DaemonProcess],
) -> None:
    with make_daemon().start() as daemon, daemon.connect() as connection:
        stream = watch(connection, WatchEventsRequest(snapshot=True))
        assert next(stream).type == event_pb2.EVENT_TYPE_SNAPSHOT_END
        assert next(stream).type == event_pb2.EVENT_TYPE_HEARTBEAT
        stream.close()  # type: ignore[attr-defined]


def test_snapshot_shows_instances_as_listings_do(
    make_daemon: Callable[..., DaemonProcess],
) -> None:
    with make_daemon().start() as daemon, daemon.connect() as connection:
        instance_id = spawn(connection)
        other = spawn(connection)
        request = WatchEventsRequest(snapshot=True, instance_ids=[instance_id])
        stream = watch(connection, request)
        shown = next(stream)
        assert next(stream).type == event_pb2.EVENT_TYPE_SNAPSHOT_END
        stream.close()  # type: ignore[attr-defined]
        listed = connection.instances.ListInstances(
            instance_pb2.ListInstancesRequest(), timeout=TIMEOUT_S
        )
        by_id = {instance.instance_id: instance for instance in listed.instances}
        assert set(by_id) == {instance_id, other}
        assert shown.instance == by_id[instance_id]
