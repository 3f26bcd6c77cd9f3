"""A pull ends while counters are asked for: QEMU must not be asked then what it cannot bear."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from virtrpc.v1 import diagnostics_pb2, diagnostics_pb2_grpc, operation_pb2, volume_pb2

from backends.libvirt.pulls import Pulls
from tests.conformance.volume.conftest import TIMEOUT_S, VolumeGuest
from tests.daemon import DaemonProcess
from tests.instances import finished
from tests.lab.waiting import until
from tests.libvirt.cut_off import at_monitor, finish_job, written_by_libvirt
from tests.libvirt.lasting import NAME, begun_merge, life, new_volume, taken
from tests.machines import qemu_pids

SUCCEEDED = operation_pb2.OPERATION_STATE_SUCCEEDED
PULL = volume_pb2.SNAPSHOT_MERGE_PULL
PULLS, ASKERS = 20, 3
SLOW_BYTES_PER_S = 1 << 16


@pytest.fixture
def daemon(folder: Path) -> Iterator[DaemonProcess]:
    with life(folder) as made:
        yield made.start()


@pytest.fixture
def guest(daemon: DaemonProcess, instance_id: str) -> Iterator[VolumeGuest]:
    with daemon.connect() as connection:
        yield VolumeGuest(connection, instance_id, "libvirt")


def counters(guest: VolumeGuest) -> diagnostics_pb2.InstanceDiagnostics:
    """As QEMU counts now."""
    stub = diagnostics_pb2_grpc.DiagnosticsServiceStub(guest.connection.channel)
    request = diagnostics_pb2.GetInstanceDiagnosticsRequest(instance_id=guest.instance_id)
    request.fresh = True
    return stub.GetInstanceDiagnostics(request, timeout=TIMEOUT_S).diagnostics


def begun(daemon: DaemonProcess) -> None:
    """QEMU pulls, and libvirt has noted it."""
    status = written_by_libvirt(daemon, NAME)[0]
    until(lambda: "type='pull' state='running'" in status.read_text(encoding="utf-8"))


def test_a_machine_outlives_the_pulls_that_counters_are_asked_beside(
    guest: VolumeGuest, folder: Path
) -> None:
    pids, device = qemu_pids(guest.instance_id), new_volume(folder)
    guest.attach(device)
    volume_id, over = device.volume.volume_id, threading.Event()

    def ask() -> int:
        asked = 0
        while not over.is_set():
            counters(guest)
            asked += 1
        return asked

    with ThreadPoolExecutor(ASKERS) as pool:
        askers = [pool.submit(ask) for _ in range(ASKERS)]
        try:
            for _ in range(PULLS):
                pulled = begun_merge(guest, volume_id, taken(guest, volume_id), PULL)
                assert finished(guest.connection, pulled).state == SUCCEEDED
        finally:
            over.set()
        assert all(asker.result() for asker in askers)
    assert qemu_pids(guest.instance_id) == pids
    guest.detach(volume_id, retry_interval={"seconds": 1})


def test_disks_are_counted_while_one_is_pulled(
    daemon: DaemonProcess, guest: VolumeGuest, folder: Path
) -> None:
    device = new_volume(folder)
    guest.attach(device)
    volume_id = device.volume.volume_id
    snapshot_id = taken(guest, volume_id)
    before = counters(guest)
    slow = begun_merge(guest, volume_id, snapshot_id, PULL, SLOW_BYTES_PER_S)
    begun(daemon)
    during = counters(guest)
    (disk,) = (disk for disk in during.disks if disk.volume_id == volume_id)
    guest.connection.operations.CancelOperation(
        operation_pb2.CancelOperationRequest(operation_id=slow.operation_id), timeout=TIMEOUT_S
    )
    finished(guest.connection, slow)
    assert [each.device_name for each in during.disks] == [d.device_name for d in before.disks]
    (was,) = (disk for disk in before.disks if disk.volume_id == volume_id)
    named = {field.name for field, _ in disk.counters.ListFields()}
    assert named >= {field.name for field, _ in was.counters.ListFields()}
    assert during.memory.resident_kib > 0
    guest.detach(volume_id, retry_interval={"seconds": 1})


def test_a_machine_outlives_a_pull_that_ends_while_no_daemon_runs(
    daemon: DaemonProcess, instance_id: str, folder: Path
) -> None:
    pids, device = qemu_pids(instance_id), new_volume(folder)
    volume_id = device.volume.volume_id
    with daemon.connect() as connection:
        guest = VolumeGuest(connection, instance_id, "libvirt")
        guest.attach(device)
        snapshot_id = taken(guest, volume_id)
        slow = begun_merge(guest, volume_id, snapshot_id, PULL, SLOW_BYTES_PER_S)
        begun(daemon)
        daemon.kill()
    at_monitor(daemon, NAME, finish_job)
    with daemon.start().connect() as connection:
        assert finished(connection, slow).state == SUCCEEDED
        guest = VolumeGuest(connection, instance_id, "libvirt")
        assert counters(guest).disks
        guest.detach(volume_id, retry_interval={"seconds": 1})
    assert qemu_pids(instance_id) == pids


def test_a_pull_waits_for_who_asks_about_its_machine_and_for_nobody_else() -> None:
    pulls, begun = Pulls(), threading.Event()

    def begin() -> None:
        with pulls.under_way("one"):
            begun.set()

    with pulls.asking("another"), pulls.asking("one") as pulled:
        assert not pulled
        pull_of_one = threading.Thread(target=begin)
        pull_of_one.start()
        assert not begun.wait(0.2)
        with pulls.asking() as pulled_by_then:
            assert pulled_by_then == {"one"}
    pull_of_one.join(TIMEOUT_S)
    assert begun.is_set()
    with pulls.asking() as pulled_after:
        assert not pulled_after


def test_a_pull_does_not_wait_for_ever() -> None:
    pulls, began = Pulls(patience_s=0.2), time.monotonic()
    with pulls.asking(), pulls.under_way("one"):
        assert time.monotonic() - began < TIMEOUT_S
