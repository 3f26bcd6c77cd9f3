"""What others do to domains is told as it happens, and never put right by the daemon itself."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from virtrpc.v1 import event_pb2, instance_pb2
from virtrpc.v1.event_pb2 import Event
from virtrpc.v1.types_pb2 import (
    POWER_STATE_PAUSED,
    POWER_STATE_RUNNING,
    POWER_STATE_SHUTDOWN,
    PowerState,
)

from tests.crash.verdict import residue
from tests.daemon import Connection, DaemonProcess
from tests.events_seen import cursor_now, events_after
from tests.images import place_guest_images
from tests.instances import TIMEOUT_S, small_spec, spawned
from tests.libvirt.guests import instance_of
from tests.libvirtd import LibvirtdHost
from tests.refusals import refused

pytestmark = [pytest.mark.libvirt, pytest.mark.timeout(180)]
FOREIGN_ID = "f0f0f0f0-1111-4111-8111-111111111111"
FOREIGN = f"""
<domain type="qemu">
  <name>foreign</name>
  <uuid>{FOREIGN_ID}</uuid>
  <memory unit="MiB">64</memory>
  <os><type>hvm</type></os>
</domain>
"""


@pytest.fixture(scope="module")
def daemon(libvirtd: LibvirtdHost, short_folder: Callable[[], Path]) -> Iterator[DaemonProcess]:
    program = (*libvirtd.inside, sys.executable, "-m", "service.main")
    with DaemonProcess(
        short_folder(),
        backend="libvirt",
        arguments=["--libvirt-uri=qemu:///system"],
        program=program,
    ) as made:
        place_guest_images(made.image_dir)
        yield made.start()


@pytest.fixture
def connection(daemon: DaemonProcess) -> Iterator[Connection]:
    with daemon.connect() as connected:
        yield connected


def virsh(libvirtd: LibvirtdHost, *words: str, sent: str = "") -> None:
    """What an administrator does on the host."""
    command = [*libvirtd.inside, "virsh", "--quiet", "--connect=qemu:///system", *words]
    subprocess.run(command, input=sent, text=True, check=True, capture_output=True)


def told_of(
    libvirtd: LibvirtdHost, connection: Connection, instance_id: str, *words: str, sent: str = ""
) -> Event:
    """The first lifecycle event of an instance that follows an administrator's doing."""
    cursor = cursor_now(connection)
    virsh(libvirtd, *words, sent=sent)

    def is_it(event: Event) -> bool:
        return event.instance_id == instance_id

    return events_after(connection, cursor, until=is_it)[-1]


def test_what_others_do_to_an_instance_is_told_and_left_as_it_is(
    libvirtd: LibvirtdHost, daemon: DaemonProcess, connection: Connection
) -> None:
    def does(word: str) -> tuple["event_pb2.EventType.ValueType", "PowerState.ValueType"]:
        event = told_of(libvirtd, connection, instance_id, word, instance_id)
        assert event.power_state == instance_of(connection, instance_id).power_state
        return event.type, event.power_state

    with spawned(connection, small_spec(backend="libvirt")) as instance_id:
        assert does("suspend") == (event_pb2.EVENT_TYPE_PAUSED, POWER_STATE_PAUSED)
        assert does("resume") == (event_pb2.EVENT_TYPE_RESUMED, POWER_STATE_RUNNING)
        assert does("destroy") == (event_pb2.EVENT_TYPE_STOPPED, POWER_STATE_SHUTDOWN)
        assert does("start") == (event_pb2.EVENT_TYPE_STARTED, POWER_STATE_RUNNING)
        does("destroy")
        event = told_of(libvirtd, connection, instance_id, "undefine", instance_id)
        assert event.type == event_pb2.EVENT_TYPE_DELETED
        with refused(grpc.StatusCode.NOT_FOUND, "INSTANCE_NOT_FOUND"):
            instance_of(connection, instance_id)
        cleanup = instance_pb2.CleanupInstanceRequest(instance_id=instance_id, destroy_disks=True)
        connection.instances.CleanupInstance(cleanup, timeout=TIMEOUT_S)
        assert residue(daemon, instance_id) == []


def test_domain_of_others_is_listed_as_such(libvirtd: LibvirtdHost, connection: Connection) -> None:
    event = told_of(libvirtd, connection, FOREIGN_ID, "define", "/dev/stdin", sent=FOREIGN)
    assert event.type == event_pb2.EVENT_TYPE_CREATED
    assert not instance_of(connection, FOREIGN_ID).managed
    event = told_of(libvirtd, connection, FOREIGN_ID, "undefine", FOREIGN_ID)
    assert event.type == event_pb2.EVENT_TYPE_DELETED
    with refused(grpc.StatusCode.NOT_FOUND, "INSTANCE_NOT_FOUND"):
        instance_of(connection, FOREIGN_ID)
