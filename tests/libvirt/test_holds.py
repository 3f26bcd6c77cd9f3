"""A guest stands still while QEMU turns its disk, where it must, and never for longer.

That QEMU would else end with it shows in tests/conformance/volume/test_other_buses.py, under load.
"""

import os
import signal
from pathlib import Path

import pytest
from virtrpc.v1 import event_pb2, operation_pb2, types_pb2
from virtrpc.v1.event_pb2 import Event
from virtrpc.v1.instance_pb2 import GetInstanceRequest

from tests.conformance.volume.conftest import VolumeGuest
from tests.daemon import Connection, DaemonProcess
from tests.events_seen import cursor_now, events_after
from tests.instances import finished
from tests.lab.waiting import until
from tests.libvirt.cut_off import at_monitor, written_by_libvirt
from tests.libvirt.dying_amid import DIED
from tests.libvirt.guests import unpause
from tests.libvirt.lasting import NAME, begun_swap, life
from tests.machines import qemu_pids

PAUSED, RESUMED = event_pb2.EVENT_TYPE_PAUSED, event_pb2.EVENT_TYPE_RESUMED
SUCCEEDED = operation_pb2.OPERATION_STATE_SUCCEEDED
STANDING = "<domstatus state='paused' reason='user'"
RUNNING = types_pb2.POWER_STATE_RUNNING


@pytest.mark.parametrize(("bus", "is_held"), [("VIRTIO", False), ("SCSI", False), ("USB", True)])
def test_a_guest_is_held_where_its_writes_do_not_wait(
    instance_id: str, folder: Path, bus: str, is_held: bool
) -> None:
    with life(folder) as daemon, daemon.start().connect() as connection:
        cursor = cursor_now(connection)
        operation, volume_id = begun_swap(connection, instance_id, folder, bus)

        def is_end(event: Event) -> bool:
            ours = event.operation.operation_id == operation.operation_id
            return ours and event.operation.done

        seen = events_after(connection, cursor, until=is_end)
        assert seen[-1].operation.state == SUCCEEDED
        held = [event.type for event in seen if event.type in (PAUSED, RESUMED)]
        assert held == ([PAUSED, RESUMED] if is_held else [])
        is_left_running(connection, instance_id, volume_id, daemon)


@pytest.mark.parametrize("moment", ["before_turn", "before_release"])
def test_who_dies_leaves_nobody_standing(instance_id: str, folder: Path, moment: str) -> None:
    with life(folder, moment) as dying, dying.start().connect() as connection:
        operation, volume_id = begun_swap(connection, instance_id, folder, "USB")
        assert dying.wait() == DIED
        written = written_by_libvirt(dying, NAME)[0].read_text(encoding="utf-8")
        assert "xmlns/held" in written, "it was held"
    with life(folder) as daemon, daemon.start().connect() as connection:
        assert finished(connection, operation).state == SUCCEEDED
        is_left_running(connection, instance_id, volume_id, daemon)


def test_the_first_that_is_told_of_a_machine_is_what_qemu_does(
    instance_id: str, folder: Path
) -> None:
    """Not what libvirt had noted before the daemon died."""
    with life(folder) as daemon:
        daemon.start().kill()
        at_monitor(daemon, NAME, lambda client: client.execute("stop"))
        with daemon.start().connect() as connection:
            request = GetInstanceRequest(instance_id=instance_id)
            until(lambda: not connection.instances.GetInstance(request).freshness.stale)
            first = connection.instances.GetInstance(request).instance
            assert first.power_state == types_pb2.POWER_STATE_PAUSED
            unpause(connection, instance_id)


@pytest.mark.parametrize("stands", [True, False])
def test_who_dies_before_libvirt_notes_it_leaves_nobody_standing(
    instance_id: str, folder: Path, stands: bool
) -> None:
    """Killed when QEMU stands or runs again, and the status file does not say so yet."""
    with life(folder, "before_turn") as dying, dying.start().connect() as connection:
        operation, volume_id = begun_swap(connection, instance_id, folder, "USB")
        assert dying.wait() == DIED
    if stands:
        status = written_by_libvirt(dying, NAME)[0]
        text = status.read_text(encoding="utf-8")
        assert STANDING in text
        status.write_text(text.replace(STANDING, "<domstatus state='running' reason='unpaused'"))
    else:
        at_monitor(dying, NAME, lambda client: client.execute("cont"))
    with life(folder) as daemon, daemon.start().connect() as connection:
        assert finished(connection, operation).state == SUCCEEDED
        is_left_running(connection, instance_id, volume_id, daemon)


def test_a_machine_that_does_not_answer_holds_up_no_start(instance_id: str, folder: Path) -> None:
    with life(folder, "before_release") as dying, dying.start().connect() as connection:
        operation, volume_id = begun_swap(connection, instance_id, folder, "USB")
        assert dying.wait() == DIED
    (pid,) = qemu_pids(instance_id)
    os.kill(pid, signal.SIGSTOP)
    with life(folder) as daemon:
        try:
            connection = daemon.start().connect()
        finally:
            os.kill(pid, signal.SIGCONT)
        with connection:
            assert finished(connection, operation).state == SUCCEEDED
            guest = VolumeGuest(connection, instance_id, "libvirt")
            until(lambda: guest.state().power_state == RUNNING)
            is_left_running(connection, instance_id, volume_id, daemon)


def is_left_running(
    connection: Connection, instance_id: str, volume_id: str, daemon: DaemonProcess
) -> None:
    """With the volume, which is taken away after."""
    guest = VolumeGuest(connection, instance_id, "libvirt")
    assert guest.state().power_state == RUNNING
    assert set(guest.disks("effective")) == {volume_id}
    assert "xmlns/held" not in written_by_libvirt(daemon, NAME)[0].read_text(encoding="utf-8")
    guest.detach(volume_id, retry_interval={"seconds": 1})
