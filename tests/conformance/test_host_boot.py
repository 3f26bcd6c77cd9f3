"""What a host's restart and a daemon's death leave undone, the next daemon does. Real QEMU."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from virtrpc.v1 import instance_pb2 as pb
from virtrpc.v1 import types_pb2
from virtrpc.v1.event_pb2 import Event

from tests.conformance.conftest import state_of
from tests.daemon import DaemonProcess
from tests.events_seen import cursor_now, events_after
from tests.instances import agent_answers, small_spec, spawned
from tests.machines import qemu_pids

pytestmark = pytest.mark.libvirt
RUNNING = types_pb2.POWER_STATE_RUNNING
OFF = (types_pb2.POWER_STATE_SHUTDOWN, types_pb2.POWER_STATE_CRASHED)


@pytest.fixture(scope="module")
def own(
    short_folder: Callable[[], Path], guest_images: Callable[[DaemonProcess], None]
) -> Iterator[DaemonProcess]:
    """A daemon that may be killed, and resumes instances."""
    arguments = ["--resume-instances"]
    with DaemonProcess(short_folder(), backend="libvirt", arguments=arguments) as made:
        guest_images(made)
        yield made.start()


@pytest.fixture(scope="module")
def guest(own: DaemonProcess) -> Iterator[str]:
    """A guest whose agent answers."""
    with own.connect() as connection, spawned(connection, small_spec(backend="libvirt")) as made:
        agent_answers(connection, made)
        yield made


def ended(verb: str, instance_id: str) -> Callable[[Event], bool]:
    """Whether an event tells that such an operation of an instance has ended."""

    def is_it(event: Event) -> bool:
        operation = event.operation
        return operation.done and (operation.verb, operation.instance_id) == (verb, instance_id)

    return is_it


def test_guest_that_was_frozen_when_the_daemon_died_is_thawed(
    own: DaemonProcess, guest: str
) -> None:
    with own.connect() as connection:
        cursor = cursor_now(connection)
        request = pb.QuiesceInstanceRequest(instance_id=guest)
        request.timeout.FromSeconds(2)
        assert connection.instances.QuiesceInstance(request).filesystems == 1
        own.kill()
    own.start()
    with own.connect() as connection:
        events_after(connection, cursor, until=ended("UnquiesceInstance", guest))
        assert not state_of(connection, guest).HasField("thaw_at")
        thaw = pb.UnquiesceInstanceRequest(instance_id=guest)
        assert connection.instances.UnquiesceInstance(thaw).filesystems == 0


def test_instances_come_back_after_a_restart_of_the_host_and_only_then(
    own: DaemonProcess, guest: str
) -> None:
    for restarted in (False, True):
        with own.connect() as connection:
            cursor = cursor_now(connection)
        own.kill()
        for pid in qemu_pids(guest):
            os.kill(pid, signal.SIGKILL)
        if restarted:
            (own.state_dir / "boot_id").write_text("that of another boot\n")
        own.start()
        with own.connect() as connection:
            if not restarted:
                assert state_of(connection, guest).power_state in OFF
                continue
            events_after(connection, cursor, until=ended("ResumeInstanceOnHostBoot", guest))
            assert state_of(connection, guest).power_state == RUNNING
