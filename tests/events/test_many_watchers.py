"""Many watchers beside many controllers: everyone sees the same events, in order, all of them."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from virtrpc.v1.event_pb2 import Event

from tests.daemon import DaemonProcess
from tests.events.controllers import contiguous, follow, sequences, spawn, storm
from tests.events_seen import cursor_now

WATCHERS = 50
INSTANCES = 8
ROUNDS = 17  # × 8 instances × 8 events: more than 1,000


def test_fifty_watchers_see_every_event_of_concurrent_verbs_in_order(
    make_daemon: Callable[..., DaemonProcess],
) -> None:
    with make_daemon().start() as daemon, daemon.connect() as connection:
        instance_ids = [spawn(connection) for _ in range(INSTANCES)]
        begin = cursor_now(connection)
        through = begin.sequence + INSTANCES * ROUNDS * 8

        def watches(_number: int) -> list[Event]:
            with daemon.connect() as own:
                return follow(own, begin, through=through)

        with ThreadPoolExecutor(WATCHERS) as watchers:
            seen = [watchers.submit(watches, number) for number in range(WATCHERS)]
            storm(daemon, instance_ids, rounds=ROUNDS)
            streams = [future.result() for future in seen]
        assert contiguous(streams[0], after=begin.sequence)
        assert len(streams[0]) >= 1000
        assert all(sequences(stream) == sequences(streams[0]) for stream in streams)
        assert all(stream == streams[0] for stream in streams)
