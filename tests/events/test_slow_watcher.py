"""A client that stops reading is cut off with a cursor; nobody else notices."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from virtrpc.v1.event_pb2 import EventCursor

from tests.daemon import DaemonProcess
from tests.events.controllers import contiguous, follow, sequences, spawn, storm
from tests.events_seen import cursor_now

STOP_S = 15.0
INSTANCES, ROUNDS = 8, 50  # × 8 events of half a KiB: more than queue and buffers take


@contextmanager
def watcher(daemon: DaemonProcess, after: EventCursor) -> Iterator[subprocess.Popen[str]]:
    """A watcher in a process of its own."""
    program = (sys.executable, "-m", "tests.events.sleepy_watcher")
    process = subprocess.Popen(
        [*program, daemon.address, after.epoch, str(after.sequence)],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_stopped_watcher_is_cut_off_and_resumes_without_loss(
    make_daemon: Callable[..., DaemonProcess],
) -> None:
    with make_daemon().start() as daemon, daemon.connect() as connection:
        begin = cursor_now(connection)
        instance_ids = [spawn(connection) for _ in range(INSTANCES)]
        with watcher(daemon, begin) as process:
            assert process.stdout is not None
            assert json.loads(process.stdout.readline()) == begin.sequence + 1
            process.send_signal(signal.SIGSTOP)
            storm(daemon, instance_ids, rounds=ROUNDS)
            now = cursor_now(connection)
            quick = follow(connection, begin, through=now.sequence)
            process.send_signal(signal.SIGCONT)
            output = process.stdout.read()  # with what came along with the first line
        assert contiguous(quick, after=begin.sequence)
        *numbers, (code, reason, cursor) = [json.loads(line) for line in output.splitlines()]
        assert (code, reason) == ("RESOURCE_EXHAUSTED", "WATCHER_TOO_SLOW")
        assert numbers == list(range(begin.sequence + 2, begin.sequence + 2 + len(numbers)))
        assert (cursor["epoch"], int(cursor["sequence"])) == (begin.epoch, numbers[-1])
        assert numbers[-1] < now.sequence
        resume = EventCursor(epoch=cursor["epoch"], sequence=int(cursor["sequence"]))
        rest = follow(connection, resume, through=now.sequence)
        assert sequences(rest) == list(range(numbers[-1] + 1, now.sequence + 1))


def test_daemon_ends_in_time_though_a_watcher_reads_nothing(
    make_daemon: Callable[..., DaemonProcess],
) -> None:
    """gRPC itself would wait for it without end."""
    with make_daemon("--grace=1").start() as daemon, daemon.connect() as connection:
        begin = cursor_now(connection)
        instance_ids = [spawn(connection) for _ in range(INSTANCES)]
        with watcher(daemon, begin) as process:
            assert process.stdout is not None
            process.stdout.readline()
            process.send_signal(signal.SIGSTOP)
            storm(daemon, instance_ids, rounds=ROUNDS)
            started = time.monotonic()
            assert daemon.stop() == 0
            assert time.monotonic() - started < STOP_S
