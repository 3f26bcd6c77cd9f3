"""What QEMU has done to a disk and libvirt did not live to write down is not lost: the guest stays
known, its disk is the one that it writes to, and can be changed again.
"""

import uuid
from pathlib import Path

import pytest
from lxml import etree
from qemu.qmp import QMPClient
from virtrpc.v1 import operation_pb2, types_pb2, volume_pb2
from virtrpc.v1.instance_pb2 import AttachedDisk

from tests.conformance.volume.conftest import TIMEOUT_S, VolumeGuest
from tests.daemon import DaemonProcess
from tests.instances import console_until, finished
from tests.libvirt.cut_off import at_monitor, finish_job, unwritten, written_by_libvirt
from tests.libvirt.dying_amid import DIED
from tests.libvirt.lasting import (
    NAME,
    READY,
    begun_merge,
    begun_snapshot,
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
        with daemon.start().connect() as connection:
            guest = VolumeGuest(connection, instance_id, "libvirt")
            operation = begun_merge(guest, volume_id, gone, merge)
            assert finished(connection, operation).state == SUCCEEDED
            active = source.with_name(f"{source.name}.{newer}")
            assert guest.disks("effective")[volume_id].source == str(active)
            starts_again(guest)
            is_whole(guest, guest.disks()[volume_id], folder)
            guest.leave_shell()


@pytest.mark.parametrize("case", ["unnoted", "undo_killed"])
def test_an_overlay_whose_maker_died_is_taken_back(
    instance_id: str, folder: Path, case: str
) -> None:
    """And not deleted while the guest writes to it; where libvirt has not noted it, and where who
    takes it back dies in the merge.
    """
    device = new_volume(folder)
    volume_id, path = device.volume.volume_id, Path(device.volume.local_file.path)
    with life(folder, "after_overlay") as dying, dying.start().connect() as connection:
        guest = VolumeGuest(connection, instance_id, "libvirt")
        guest.attach(device)
        paths = written_by_libvirt(dying, NAME)
        written = [written_path.read_bytes() for written_path in paths]
        operation = begun_snapshot(guest, volume_id, str(uuid.uuid4()))
        assert dying.wait() == DIED
    assert len(list(path.parent.glob(f"{path.name}.*"))) == 1
    if case == "unnoted":
        for written_path, data in zip(paths, written, strict=True):
            written_path.write_bytes(data)
    else:
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
