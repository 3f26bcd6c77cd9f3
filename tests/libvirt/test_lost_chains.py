"""What QEMU has done to a disk and libvirt did not live to write down is not lost: the guest stays
known, its disk is the one that it writes to, and can be changed again.
"""

import os
import signal
import subprocess
import uuid
from pathlib import Path
from typing import Any

import pytest
from lxml import etree
from qemu.qmp import QMPClient
from virtrpc.v1 import operation_pb2, types_pb2, volume_pb2
from virtrpc.v1.instance_pb2 import AttachedDisk
from virtrpc.v1.spec_pb2 import BlockDevice

from tests.conformance.volume.conftest import TIMEOUT_S, VolumeGuest
from tests.daemon import DaemonProcess
from tests.instances import console_until, finished
from tests.libvirt.cut_off import at_monitor, finish_job, unwritten, written_by_libvirt
from tests.libvirt.dying_amid import DIED
from tests.libvirt.lasting import (
    NAME,
    READY,
    begun_merge,
    begun_swap,
    life,
    new_volume,
    taken,
)
from tests.machines import qemu_pids

COMMIT, PULL = volume_pb2.SNAPSHOT_MERGE_COMMIT, volume_pb2.SNAPSHOT_MERGE_PULL
SUCCEEDED = operation_pb2.OPERATION_STATE_SUCCEEDED
# How far libvirt has come when it dies: the end is noted last, and before it what it cannot read.
WINDOWS = ["turned", "dismissed", "unreadable", "files_closed"]


def turn(daemon: DaemonProcess, window: str) -> None:
    """Has QEMU turn the disk whose job is ready, as libvirt does; no daemon runs."""

    async def ask(client: QMPClient) -> None:
        job = await finish_job(client)
        if window != "turned":
            await client.execute("job-dismiss", {"id": job})
        if window == "files_closed":
            left = job.split("-", 2)[2]
            for kind in ("format", "storage"):
                node = left.replace("format", kind)
                await client.execute("blockdev-del", {"node-name": node})

    at_monitor(daemon, NAME, ask)
    if window == "unreadable":
        path = written_by_libvirt(daemon, NAME)[0]
        status = etree.fromstring(path.read_bytes())
        (mirror,) = status.iter("mirror")
        mirror.set("job", "")
        (job,) = status.iter("blockjob")
        job.set("state", "pivoting")
        job.set("newstate", "completed")
        path.write_bytes(etree.tostring(status))


@pytest.mark.parametrize("window", WINDOWS)
def test_a_swap_that_libvirt_did_not_note_is_one(
    instance_id: str, folder: Path, window: str
) -> None:
    pids = qemu_pids(instance_id)
    with life(folder, "before_turn") as dying, dying.start().connect() as connection:
        operation, volume_id = begun_swap(connection, instance_id, folder)
        assert dying.wait() == DIED
    turn(dying, window)
    with life(folder) as daemon, daemon.start().connect() as connection:
        assert finished(connection, operation).state == SUCCEEDED
        guest = VolumeGuest(connection, instance_id, "libvirt")
        is_whole(guest, guest.disks()[volume_id], folder)
        guest.leave_shell()
    assert qemu_pids(instance_id) == pids


@pytest.mark.parametrize("window", WINDOWS)
def test_a_merge_of_the_active_file_that_libvirt_did_not_note_is_one(
    instance_id: str, folder: Path, window: str
) -> None:
    device = new_volume(folder)
    volume_id = device.volume.volume_id
    with life(folder) as daemon, daemon.start().connect() as connection:
        guest = VolumeGuest(connection, instance_id, "libvirt")
        guest.attach(device)
        snapshot_id = taken(guest, volume_id)
    with life(folder, "before_turn") as dying, dying.start().connect() as connection:
        guest = VolumeGuest(connection, instance_id, "libvirt")
        operation = begun_merge(guest, volume_id, snapshot_id, COMMIT)
        assert dying.wait() == DIED
    turn(dying, window)
    with life(folder) as daemon, daemon.start().connect() as connection:
        assert finished(connection, operation).state == SUCCEEDED
        guest = VolumeGuest(connection, instance_id, "libvirt")
        disk = guest.disks("effective")[volume_id]
        assert disk.source == device.volume.local_file.path
        assert not list(folder.glob(f"volumes/*{snapshot_id}"))
        starts_again(guest)
        is_whole(guest, disk, folder)
        guest.leave_shell()


@pytest.mark.parametrize("merge", [PULL, COMMIT])
def test_a_merge_below_the_active_file_that_libvirt_did_not_note_is_one(
    instance_id: str, folder: Path, merge: int
) -> None:
    """A pull takes the lower files away; a commit of the older snapshot the one in the middle."""
    device = new_volume(folder)
    volume_id, source = device.volume.volume_id, Path(device.volume.local_file.path)
    with life(folder) as daemon:
        with daemon.start().connect() as connection:
            guest = VolumeGuest(connection, instance_id, "libvirt")
            guest.attach(device)
            older, newer = taken(guest, volume_id), taken(guest, volume_id)
        gone = newer if merge == PULL else older
        with unwritten(daemon, NAME), daemon.connect() as connection:
            guest = VolumeGuest(connection, instance_id, "libvirt")
            operation = begun_merge(guest, volume_id, gone, merge)
            assert finished(connection, operation).state == SUCCEEDED
        note_job(daemon, volume_id, "pull" if merge == PULL else "commit")
        with daemon.start().connect() as connection:
            guest = VolumeGuest(connection, instance_id, "libvirt")
            done = finished(connection, begun_merge(guest, volume_id, gone, merge))
            assert done.state == SUCCEEDED
            deleted = volume_pb2.DeleteVolumeSnapshotResponse()
            assert done.result.Unpack(deleted)
            assert [left.base_file for left in deleted.snapshots] == [source.name]
            assert not source.with_name(f"{source.name}.{older}").exists()
            active = source.with_name(f"{source.name}.{newer}")
            assert guest.disks("effective")[volume_id].source == str(active)
            starts_again(guest)
            is_whole(guest, guest.disks()[volume_id], folder)
            guest.leave_shell()


def note_job(daemon: DaemonProcess, volume_id: str, kind: str) -> None:
    """As libvirt does before it has QEMU begin one, for a disk of a daemon that does not run."""
    path = written_by_libvirt(daemon, NAME)[0]
    status = etree.fromstring(path.read_bytes())
    target = status.find(f".//disk[serial='{volume_id}']/target")
    assert target is not None
    (jobs,) = status.iter("blockjobs")
    job = etree.SubElement(jobs, "blockjob", name="over", type=kind, state="running")
    etree.SubElement(job, "disk", dst=target.get("dev", ""))
    path.write_bytes(etree.tostring(status))


@pytest.mark.parametrize("case", ["unnoted", "undo_killed"])
def test_an_overlay_whose_maker_died_is_taken_back(
    instance_id: str, folder: Path, case: str
) -> None:
    """And not deleted while the guest writes to it; where libvirt has not noted it, and where who
    takes it back dies in the merge.
    """
    device = new_volume(folder)
    volume_id, path = device.volume.volume_id, Path(device.volume.local_file.path)
    operation, _ = cut_overlay(folder, instance_id, device, is_noted=case == "undo_killed")
    assert len(list(path.parent.glob(f"{path.name}.*"))) == 1
    if case == "undo_killed":
        with life(folder, "before_turn") as dying:
            dying.start(wait=False)
            assert dying.wait() == DIED
    with life(folder) as daemon, daemon.start().connect() as connection:
        assert finished(connection, operation).state == operation_pb2.OPERATION_STATE_FAILED
        guest = VolumeGuest(connection, instance_id, "libvirt")
        assert not list(path.parent.glob(f"{path.name}.*"))
        disk = guest.disks("effective")[volume_id]
        assert disk.source == str(path)
        is_whole(guest, disk, folder)
        guest.leave_shell()


def cut_overlay(
    folder: Path, instance_id: str, device: BlockDevice, *, is_noted: bool = False, **fields: Any
) -> tuple[operation_pb2.Operation, volume_pb2.CreateVolumeSnapshotRequest]:
    """A snapshot's operation that died when QEMU had the overlay; libvirt had noted it or not."""
    with life(folder, "after_overlay") as dying, dying.start().connect() as connection:
        guest = VolumeGuest(connection, instance_id, "libvirt")
        guest.attach(device)
        paths = written_by_libvirt(dying, NAME)
        written = [path.read_bytes() for path in paths]
        request = volume_pb2.CreateVolumeSnapshotRequest(
            instance_id=instance_id,
            volume_id=device.volume.volume_id,
            snapshot_id=str(uuid.uuid4()),
            request_id=str(uuid.uuid4()),
            **fields,
        )
        operation = connection.volumes.CreateVolumeSnapshot(request, timeout=TIMEOUT_S)
        assert dying.wait() == DIED
    if not is_noted:
        for path, data in zip(paths, written, strict=True):
            path.write_bytes(data)
    return operation, request


@pytest.mark.parametrize("is_relative", [False, True])
def test_an_overlay_of_the_callers_own_stays(
    instance_id: str, folder: Path, is_relative: bool
) -> None:
    """Nothing is undone of it: called again it is noted, and the next start has it."""
    device = new_volume(folder)
    base = Path(device.volume.local_file.path)
    overlay = base.with_suffix(".overlay")
    below = base.name if is_relative else str(base)
    create = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", below, "-F", "raw", str(overlay)]
    subprocess.run(create, check=True)
    operation, request = cut_overlay(
        folder, instance_id, device, reuse_file=True, overlay_file=overlay.name
    )
    with life(folder) as daemon, daemon.start().connect() as connection:
        assert finished(connection, operation).done
        request.request_id = str(uuid.uuid4())
        again = connection.volumes.CreateVolumeSnapshot(request, timeout=TIMEOUT_S)
        assert finished(connection, again).state == SUCCEEDED
        guest = VolumeGuest(connection, instance_id, "libvirt")
        starts_again(guest)
        for machine in ("effective", "persistent"):
            assert guest.disks(machine)[device.volume.volume_id].source == str(overlay)
        guest.detach(device.volume.volume_id, retry_interval={"seconds": 1})


def test_an_overlay_of_a_machine_that_does_not_answer_is_not_deleted(
    instance_id: str, folder: Path
) -> None:
    device = new_volume(folder)
    operation, request = cut_overlay(folder, instance_id, device)
    base = Path(device.volume.local_file.path)
    overlay = base.with_name(f"{base.name}.{request.snapshot_id}")
    (pid,) = qemu_pids(instance_id)
    os.kill(pid, signal.SIGSTOP)
    with life(folder) as daemon:
        try:
            connection = daemon.start().connect()
        finally:
            os.kill(pid, signal.SIGCONT)
        with connection:
            assert finished(connection, operation).done
            assert overlay.exists()
    with life(folder) as daemon, daemon.start().connect() as connection:
        guest = VolumeGuest(connection, instance_id, "libvirt")
        assert guest.disks("effective")[device.volume.volume_id].source == str(overlay)
        assert overlay.exists()
        guest.detach(device.volume.volume_id, retry_interval={"seconds": 1})


def test_a_machine_that_libvirt_cannot_read_is_never_started_twice(
    instance_id: str, folder: Path
) -> None:
    """Though it does not answer while the daemon starts."""
    pids = qemu_pids(instance_id)
    with life(folder, "before_turn") as dying, dying.start().connect() as connection:
        operation, volume_id = begun_swap(connection, instance_id, folder)
        assert dying.wait() == DIED
    turn(dying, "unreadable")
    os.kill(pids[0], signal.SIGSTOP)
    with life(folder) as daemon:
        try:
            connection = daemon.start().connect()
        finally:
            os.kill(pids[0], signal.SIGCONT)
        with connection:
            assert finished(connection, operation).state == SUCCEEDED
            guest = VolumeGuest(connection, instance_id, "libvirt")
            guest.power_on()
            assert qemu_pids(instance_id) == pids
            is_whole(guest, guest.disks()[volume_id], folder)
            guest.leave_shell()


def starts_again(guest: VolumeGuest) -> None:
    """With the files that it has now."""
    guest.power_off()
    guest.power_on()
    console_until(guest.connection, guest.instance_id, READY)


def is_whole(guest: VolumeGuest, disk: AttachedDisk, folder: Path) -> None:
    """What the guest writes is in the file that is told, and all can be done to the disk; it is
    taken away after.
    """
    assert guest.state().power_state == types_pb2.POWER_STATE_RUNNING
    word = str(uuid.uuid4())
    write = f"echo {word} | dd of=/dev/{disk.device_name} bs=512 conv=sync,notrunc oflag=direct"
    guest.shell.run(f"{write} 2>/dev/null")
    assert word.encode() in Path(disk.source).read_bytes()
    new = new_volume(folder).volume
    request = volume_pb2.SwapVolumeRequest(
        instance_id=guest.instance_id, old_volume_id=disk.volume_id, new_volume=new
    )
    operation = guest.connection.volumes.SwapVolume(request, timeout=TIMEOUT_S)
    assert finished(guest.connection, operation).state == SUCCEEDED
    assert word.encode() in Path(new.local_file.path).read_bytes()
    for machine in ("effective", "persistent"):
        assert guest.disks(machine)[new.volume_id].source == new.local_file.path
    guest.detach(new.volume_id, retry_interval={"seconds": 1})
