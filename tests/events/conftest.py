"""Fixtures of the event tests: one daemon of the fake, with a history."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from virtrpc.v1.event_pb2 import Event

from tests.daemon import Connection, DaemonProcess
from tests.events.controllers import follow, spawn, storm
from tests.events_seen import cursor_now


@pytest.fixture(scope="module")
def fake(short_folder: Callable[[], Path]) -> Iterator[DaemonProcess]:
    """A daemon of the fake for the tests of a module."""
    with DaemonProcess(short_folder(), backend="fake") as daemon:
        yield daemon.start()


@pytest.fixture
def to_fake(fake: DaemonProcess) -> Iterator[Connection]:
    """A connection to it."""
    with fake.connect() as connection:
        yield connection


@pytest.fixture(scope="module")
def history(fake: DaemonProcess) -> list[Event]:
    """Every event of that daemon from the first on: some hundreds, of three instances."""
    with fake.connect() as connection:
        instance_ids = [spawn(connection) for _ in range(3)]
        storm(fake, instance_ids, rounds=10)
        now = cursor_now(connection)
        begin = type(now)(epoch=now.epoch, sequence=0)
        return follow(connection, begin, through=now.sequence)
