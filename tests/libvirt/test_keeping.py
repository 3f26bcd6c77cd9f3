"""A connection comes back by itself, whatever goes wrong on the way."""

import queue
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

import libvirt
import pytest

from backends.contract import Observer
from backends.errors import HypervisorError, UnreachableError
from backends.libvirt import LibvirtBackend
from backends.libvirt.connection import Connection, start_event_loop
from backends.libvirt.handles import Handles
from backends.loading import BackendOptions

TIMEOUT_S = 20


class Kept:
    """A connection to the test driver that notes what becomes of it, and fails when told to."""

    def __init__(self) -> None:
        self.happened: queue.Queue[str] = queue.Queue()
        self.failures: list[Exception] = []
        self.generations: list[Handles] = []
        self.connection = Connection(
            "test:///default", connected=self.connected, lost=self.happened.put
        )

    def connected(self, handles: Handles) -> None:
        self.generations.append(handles)
        if self.failures:
            self.happened.put("failed")
            raise self.failures.pop()
        self.happened.put("connected")

    def next(self) -> str:
        return self.happened.get(timeout=TIMEOUT_S)


@pytest.fixture
def kept() -> Iterator[Kept]:
    made = Kept()
    yield made
    made.connection.close()


def lost_error() -> libvirt.libvirtError:
    """As a call on a connection that has gone ends."""
    start_event_loop()
    with pytest.raises(libvirt.libvirtError) as caught:
        libvirt.open("qemu:///system?socket=/nonexistent/libvirt-sock")
    error: libvirt.libvirtError = caught.value
    return error


def other_error() -> Exception:
    return HypervisorError("one domain could not be read")


def test_lost_connection_is_replaced(kept: Kept) -> None:
    first = kept.connection.open()
    kept.connection.suspect(lost_error())
    assert [kept.next() for _ in range(3)] == [
        "connected", "the connection to libvirt was lost", "connected",
    ]  # fmt: skip
    assert kept.connection.handles is kept.generations[-1] is not first


@pytest.mark.parametrize("failure", [lost_error, other_error])
def test_failure_right_after_coming_back_is_not_the_end(
    failure: Callable[[], Exception], kept: Kept
) -> None:
    kept.connection.open()
    kept.failures.append(failure())
    kept.connection.suspect(lost_error())
    assert [kept.next() for _ in range(4)] == [
        "connected", "the connection to libvirt was lost", "failed", "connected",
    ]  # fmt: skip


@pytest.mark.parametrize("failure", [lost_error, other_error])
def test_first_open_that_fails_midway_can_be_repeated(
    failure: Callable[[], Exception], kept: Kept
) -> None:
    kept.failures.append(failure())
    with pytest.raises(UnreachableError):
        kept.connection.open()
    with pytest.raises(UnreachableError):
        _ = kept.connection.handles
    assert kept.connection.open() is kept.generations[-1]


def test_open_of_an_open_connection_gives_the_same(kept: Kept) -> None:
    assert kept.connection.open() is kept.connection.open()


def test_each_thread_has_a_connection_of_its_own(kept: Kept) -> None:
    handles = kept.connection.open()
    with ThreadPoolExecutor(1) as pool:
        of_another = [pool.submit(lambda: handles.own).result() for _ in range(2)]
    assert of_another[0] is of_another[1]
    assert handles.own is handles.own
    assert len({id(each) for each in (handles.own, of_another[0], handles.events)}) == 3


def test_error_of_a_living_connection_changes_nothing(
    kept: Kept, test_driver: libvirt.virConnect
) -> None:
    handles = kept.connection.open()
    with pytest.raises(libvirt.libvirtError) as caught:
        test_driver.lookupByName("nobody")
    kept.connection.suspect(caught.value)
    assert kept.connection.open() is handles


class Listener:
    """An Observer that notes what it was told, but not of whom."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_, **__: self.told.append(name)


def test_backend_whose_probe_failed_is_opened_again(tmp_path: Path) -> None:
    backend = LibvirtBackend(
        BackendOptions(state_dir=tmp_path, image_dir=tmp_path, libvirt_uri="test:///default")
    )
    listener = Listener()
    try:
        facts = [backend.open(cast(Observer, listener)).hypervisor_type for _ in range(2)]
    finally:
        backend.close()
    assert facts == ["TEST", "TEST"]
    assert listener.told == ["instances_listed", "connected"]
