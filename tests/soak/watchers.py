"""Two hundred watchers, half of them stopped, under a storm of events."""

import json
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import grpc
from virtrpc.v1.event_pb2 import EVENT_TYPE_HEARTBEAT, Event, EventCursor, WatchEventsRequest

from tests.daemon import Connection, DaemonProcess
from tests.events.controllers import contiguous, destroy, spawn, storm, toggle, watch
from tests.events_seen import cursor_now
from tests.soak.invariants import Usage

RESOURCE_EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED
DEADLINE_EXCEEDED = grpc.StatusCode.DEADLINE_EXCEEDED
READING = STOPPED = 100
INSTANCES = 8
EVENTS_PER_ROUND = INSTANCES * 8
_GROWN_MIB = 256


def run(daemon: DaemonProcess, *, rounds: int) -> list[str]:
    """Everything that was wrong."""
    before = Usage(daemon)
    with daemon.connect() as connection:
        instance_ids = [spawn(connection) for _ in range(INSTANCES)]
        begin = cursor_now(connection)
        stopped = Stopped(daemon, begin)
        toggle(connection, instance_ids[0])
    stopped.stop()
    through = begin.sequence + 8 + rounds * EVENTS_PER_ROUND
    streams = _storm_read_by_many(daemon, instance_ids, begin, through=through, rounds=rounds)
    peak = Usage(daemon)
    faults = [
        "a watcher that reads has lost events"
        for stream in streams
        if not contiguous(stream, after=begin.sequence)
    ]
    faults += stopped.end()
    if peak.memory_mib > before.memory_mib + _GROWN_MIB:
        faults.append(f"memory has grown from {before.memory_mib} to {peak.memory_mib} MiB")
    with daemon.connect() as connection:
        for instance_id in instance_ids:
            destroy(connection, instance_id)
    print(f"{READING:8} watchers were told {through - begin.sequence} events each")
    print(f"{STOPPED:8} others had stopped reading; the daemon took {peak.memory_mib} MiB")
    return faults


def _storm_read_by_many(
    daemon: DaemonProcess, instance_ids: list[str], begin: EventCursor, *, through: int, rounds: int
) -> list[list[Event]]:
    def watches(_number: int) -> list[Event]:
        events: list[Event] = []
        with daemon.connect() as own:
            while not events or events[-1].cursor.sequence < through:
                events += _read_on(own, events[-1].cursor if events else begin, through=through)
        return events

    with ThreadPoolExecutor(READING) as readers:
        seen = [readers.submit(watches, number) for number in range(READING)]
        storm(daemon, instance_ids, rounds=rounds)
        return [future.result() for future in seen]


def _read_on(connection: Connection, after: EventCursor, *, through: int) -> list[Event]:
    """What follows a cursor, until one is thought too slow or the time is over, as may be here."""
    events: list[Event] = []
    try:
        for event in watch(connection, WatchEventsRequest(after=after)):
            if event.type != EVENT_TYPE_HEARTBEAT:
                events.append(event)
            if event.cursor.sequence >= through:
                break
    except grpc.RpcError as error:
        if error.code() not in (RESOURCE_EXHAUSTED, DEADLINE_EXCEEDED):
            raise
    return events


class Stopped:
    """Watchers that ask, and then read no further."""

    def __init__(self, daemon: DaemonProcess, begin: EventCursor) -> None:
        where = (daemon.address, begin.epoch, str(begin.sequence), str(STOPPED))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.soak.sleepers", *where],
            stdout=subprocess.PIPE,
            text=True,
        )

    def stop(self) -> None:
        """Stops them when all of them watch."""
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "watching\n"
        self._process.send_signal(signal.SIGSTOP)

    def end(self) -> list[str]:
        """Lets them go on: each was cut off where it had read to, and told so."""
        assert self._process.stdout is not None
        self._process.send_signal(signal.SIGCONT)
        output = self._process.stdout.read()
        self._process.wait()
        ends = [json.loads(line) for line in output.splitlines()]
        faults = [
            f"a watcher that had read to {last} was told {told}: {reason}"
            for last, told, reason in ends
            if (str(last), reason) != (told, "WATCHER_TOO_SLOW")
        ]
        return faults if len(ends) == STOPPED else [*faults, f"only {len(ends)} ended"]
