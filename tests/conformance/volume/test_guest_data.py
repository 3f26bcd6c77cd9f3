"""What the guest itself sees of its volumes: all bytes, whatever becomes of the storage."""

import hashlib
import os
import subprocess
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from virtrpc.v1 import operation_pb2, spec_pb2, volume_pb2
from virtrpc.v1.operation_pb2 import Operation
from virtrpc.v1.spec_pb2 import BlockDevice, VolumeConnection

from tests.conformance.volume.conftest import MIB, TIMEOUT_S, VolumeGuest, file_volume
from tests.daemon import Connection
from tests.instances import destroyed, finished, in_phase, small_spec, spawned
from tests.refusals import refused
from tests.storage_servers import (
    TARGET,
    anew,
    iscsi_server,
    loop_device,
    nbd_server,
    slow_nbd_server,
)

pytestmark = pytest.mark.parametrize("backend", ["libvirt"], indirect=True)
MakeFile = Callable[..., Path]
_ROUNDS = int(os.environ.get("VIRTRPC_VOLUME_ROUNDS", "20"))  # a soak says 200
_WRITTEN = "".join(f"{number}\n" for number in range(1, 5001)).encode()
_WRITTEN_MD5 = hashlib.md5(_WRITTEN, usedforsecurity=False).hexdigest()


def served(**source: object) -> BlockDevice:
    """A volume on a server."""
    return BlockDevice(volume=VolumeConnection(volume_id=str(uuid.uuid4()), **source))  # type: ignore[arg-type]


@contextmanager
def storage(kind: str, path: Path) -> Iterator[BlockDevice]:
    """A file as a volume of a kind."""
    if kind == "file":
        yield file_volume(path)
    elif kind == "block":
        with loop_device(path) as device:
            yield served(local_block={"path": device})
    elif kind == "nbd":
        with nbd_server(path, export="vol/ü") as port:
            yield served(nbd={"host": "127.0.0.1", "port": port, "export": "vol/ü"})
    elif kind == "nbd-socket":
        socket_path = path.with_suffix(".sock")
        with nbd_server(path, socket_path=socket_path):
            yield served(nbd={"socket_path": str(socket_path)})
        socket_path.unlink(missing_ok=True)
    else:
        with iscsi_server(path) as port:
            yield served(iscsi={"host": "127.0.0.1", "port": port, "target_iqn": TARGET, "lun": 1})


def appears(guest: VolumeGuest, name: str = "vda") -> None:
    """Returns when the guest has the device."""
    guest.shell.run(f"until [ -b /dev/{name} ]; do usleep 20000; done")


def disappears(guest: VolumeGuest, name: str = "vda") -> None:
    """Returns when the guest has the device no more."""
    guest.shell.run(f"until [ ! -e /sys/block/{name} ]; do usleep 20000; done")


@pytest.mark.parametrize("kind", ["file", "block", "nbd", "nbd-socket", "iscsi"])
def test_the_guest_writes_and_reads(
    empty_guest: VolumeGuest, make_file: MakeFile, kind: str
) -> None:
    path = make_file()
    with storage(kind, path) as device:
        disk = empty_guest.attach(device).disk
        shell = empty_guest.shell
        appears(empty_guest)
        assert shell.run("cat /sys/block/vda/serial") == disk.volume_id[:20]
        shell.run("seq 1 5000 | dd of=/dev/vda bs=64k conv=fsync 2>/dev/null")
        shell.run("echo 3 >/proc/sys/vm/drop_caches")
        read = shell.run(f"head -c {len(_WRITTEN)} /dev/vda | md5sum").split()[0]
        assert read == _WRITTEN_MD5
        empty_guest.detach(disk.volume_id)
        disappears(empty_guest)
    kept = path.read_bytes()[: len(_WRITTEN)]
    assert hashlib.md5(kept, usedforsecurity=False).hexdigest() == _WRITTEN_MD5


def test_the_guest_sees_scsi(empty_guest: VolumeGuest, make_file: MakeFile) -> None:
    device = file_volume(make_file())
    device.bus = spec_pb2.DISK_BUS_SCSI
    disk = empty_guest.attach(device).disk
    appears(empty_guest, disk.device_name)
    empty_guest.shell.run(f"seq 1 9 | dd of=/dev/{disk.device_name} conv=fsync 2>/dev/null")
    empty_guest.detach(disk.volume_id)
    disappears(empty_guest, disk.device_name)


@pytest.mark.parametrize("kind", ["file", "qcow2", "block", "iscsi"])
def test_the_guest_sees_it_grow(empty_guest: VolumeGuest, make_file: MakeFile, kind: str) -> None:
    path = make_file(format_="qcow2" if kind == "qcow2" else "raw")
    with storage("file" if kind == "qcow2" else kind, path) as device:
        empty_guest.attach(device)
        appears(empty_guest)
        if kind in ("block", "iscsi"):
            with refused(grpc.StatusCode.FAILED_PRECONDITION, "VOLUME_TOO_SMALL"):
                extended(empty_guest, device)
            os.truncate(path, 16 * MIB)
        if kind == "block":
            subprocess.run(["losetup", "-c", device.volume.local_block.path], check=True)
        if kind == "iscsi":
            anew(device.volume.iscsi.port, path)
        for _ in range(2):
            assert extended(empty_guest, device).guest_size_bytes == 16 * MIB
        empty_guest.shell.run(
            f"until [ $(blockdev --getsize64 /dev/vda) = {16 * MIB} ]; do usleep 20000; done"
        )
        empty_guest.detach(device.volume.volume_id)


def extended(guest: VolumeGuest, device: BlockDevice) -> volume_pb2.ExtendVolumeResponse:
    request = volume_pb2.ExtendVolumeRequest(
        instance_id=guest.instance_id, volume_id=device.volume.volume_id, size_bytes=16 * MIB
    )
    return guest.connection.volumes.ExtendVolume(request, timeout=TIMEOUT_S)


@contextmanager
def writing(guest: VolumeGuest, name: str = "vda") -> Iterator[None]:
    """The guest writes numbered sectors, round and round, inside; then all is on its disk."""
    guest.shell.run("touch /run/writing; echo 0 >/run/written")
    guest.shell.run(
        "{ (i=0; while [ -e /run/writing ]; do i=$((i+1));"
        f" printf '%0512d' $i | dd of=/dev/{name} bs=512 seek=$((i%2048)) conv=notrunc 2>/dev/null;"
        " echo $i >/run/written; done) >/dev/null 2>&1 & }"
    )
    yield
    guest.shell.run("rm /run/writing; wait; sync; [ $(cat /run/written) -gt 5 ]")


def checksum_in_guest(guest: VolumeGuest, name: str = "vda") -> str:
    guest.shell.run("echo 3 >/proc/sys/vm/drop_caches")
    # The shell may say before it that its job has ended.
    return guest.shell.run(f"head -c {8 * MIB} /dev/{name} | md5sum").splitlines()[-1].split()[0]


def checksum_of(path: Path, *, format_: str = "raw") -> str:
    """Of what a guest sees in a file and all it is based on."""
    raw = path
    if format_ != "raw":
        raw = path.with_name(f"{path.name}.checked")
        convert = ["qemu-img", "convert", "-f", format_, "-O", "raw", str(path), str(raw)]
        subprocess.run(convert, check=True)
    return hashlib.md5(raw.read_bytes()[: 8 * MIB], usedforsecurity=False).hexdigest()


def numbers_in(path: Path) -> list[int]:
    """Of the sectors that the guest has written, from the second on."""
    sectors = path.read_bytes()[512:MIB]
    read = [sectors[at : at + 512].strip(b"\0") for at in range(0, len(sectors), 512)]
    return [int(sector) for sector in read if sector]


def ended_well(guest: VolumeGuest, operation: Operation) -> Operation:
    ended = finished(guest.connection, operation)
    assert ended.state == operation_pb2.OPERATION_STATE_SUCCEEDED, ended.error
    return ended


def test_nothing_is_lost_by_a_swap(empty_guest: VolumeGuest, make_file: MakeFile) -> None:
    old, new = file_volume(make_file()), make_file(size_bytes=12 * MIB)
    before = empty_guest.attach(old).disk
    appears(empty_guest)
    new_volume = file_volume(new).volume
    request = volume_pb2.SwapVolumeRequest(
        instance_id=empty_guest.instance_id,
        old_volume_id=old.volume.volume_id,
        new_volume=new_volume,
        resize_to_bytes=12 * MIB,
    )
    with writing(empty_guest):
        for _ in range(2):
            operation = empty_guest.connection.volumes.SwapVolume(request, timeout=TIMEOUT_S)
            ended = ended_well(empty_guest, operation)
    result = volume_pb2.SwapVolumeResponse()
    ended.result.Unpack(result)
    assert (result.disk.source, result.size_bytes) == (str(new), 12 * MIB)
    assert result.disk.device_name == before.device_name
    assert set(empty_guest.disks()) == set(empty_guest.disks("effective"))
    assert set(empty_guest.disks()) == {new_volume.volume_id}
    assert empty_guest.shell.run("blockdev --getsize64 /dev/vda") == str(12 * MIB)
    written = int(empty_guest.shell.run("cat /run/written"))
    (now,) = empty_guest.disks("effective").values()
    assert now.source == str(new)
    seen = checksum_in_guest(empty_guest)
    empty_guest.detach(new_volume.volume_id)
    assert numbers_in(new) == list(range(1, written + 1))
    assert checksum_of(new) == seen


@contextmanager
def swapping_slowly(guest: VolumeGuest, path: Path) -> Iterator[Operation]:
    """A swap that is at its mirror, for some seconds."""
    path.write_bytes(os.urandom(8 * MIB))
    old = file_volume(path)
    guest.attach(old)
    with slow_nbd_server(size_bytes=8 * MIB, bits_per_s=12 * MIB) as port:
        new = served(nbd={"host": "127.0.0.1", "port": port})
        operation = guest.connection.volumes.SwapVolume(
            volume_pb2.SwapVolumeRequest(
                instance_id=guest.instance_id,
                old_volume_id=old.volume.volume_id,
                new_volume=new.volume,
            ),
            timeout=TIMEOUT_S,
        )
        in_phase(guest.connection, operation, "mirror")
        yield operation


def test_a_swap_can_be_cancelled(empty_guest: VolumeGuest, make_file: MakeFile) -> None:
    path = make_file()
    with swapping_slowly(empty_guest, path) as operation:
        request = operation_pb2.CancelOperationRequest(operation_id=operation.operation_id)
        empty_guest.connection.operations.CancelOperation(request, timeout=TIMEOUT_S)
        ended = finished(empty_guest.connection, operation)
        assert ended.state == operation_pb2.OPERATION_STATE_CANCELLED, ended
    for machine in ("persistent", "effective"):
        (disk,) = empty_guest.disks(machine).values()
        assert disk.source == str(path)
    empty_guest.shell.run("echo on | dd of=/dev/vda conv=fsync 2>/dev/null")
    assert path.read_bytes().startswith(b"on\n")


def test_a_destroy_pre_empts_a_swap(
    connection: Connection, backend: str, make_file: MakeFile
) -> None:
    path = make_file()
    with spawned(connection, small_spec(backend=backend)) as instance_id:
        guest = VolumeGuest(connection, instance_id, backend)
        with swapping_slowly(guest, path) as operation:
            destroyed(connection, instance_id)
            ended = finished(connection, operation)
            assert ended.state == operation_pb2.OPERATION_STATE_CANCELLED, ended
    assert path.exists()


@pytest.mark.parametrize("merge", ["commit", "pull"])
def test_nothing_is_lost_by_a_snapshot(
    empty_guest: VolumeGuest, make_file: MakeFile, merge: str
) -> None:
    path = make_file()
    device = file_volume(path)
    volume_id = device.volume.volume_id
    empty_guest.attach(device)
    appears(empty_guest)
    names = [str(uuid.uuid4()) for _ in range(2)]
    which: dict[str, Any] = {"instance_id": empty_guest.instance_id, "volume_id": volume_id}
    stub = empty_guest.connection.volumes
    with writing(empty_guest):
        for name in names:
            take = volume_pb2.CreateVolumeSnapshotRequest(**which, snapshot_id=name)
            result = volume_pb2.CreateVolumeSnapshotResponse()
            operation = stub.CreateVolumeSnapshot(take, timeout=TIMEOUT_S)
            ended_well(empty_guest, operation).result.Unpack(result)
        assert result.snapshot.parent_snapshot_id == names[0]
        assert result.disk.source == f"{path}.{names[1]}"
        kind = getattr(volume_pb2, f"SNAPSHOT_MERGE_{merge.upper()}")
        for name in reversed(names):
            delete = volume_pb2.DeleteVolumeSnapshotRequest(**which, snapshot_id=name, merge=kind)
            response = volume_pb2.DeleteVolumeSnapshotResponse()
            operation = stub.DeleteVolumeSnapshot(delete, timeout=TIMEOUT_S)
            ended_well(empty_guest, operation).result.Unpack(response)
    assert not response.snapshots
    seen = checksum_in_guest(empty_guest)
    empty_guest.detach(volume_id)
    active = Path(response.disk.source)
    assert checksum_of(active, format_="raw" if active == path else "qcow2") == seen
    left = {file.name for file in path.parent.iterdir() if file.name != f"{active.name}.checked"}
    assert left == ({path.name} if merge == "commit" else {path.name, active.name})


def test_rounds_leave_nothing(empty_guest: VolumeGuest, make_file: MakeFile) -> None:
    device = file_volume(make_file())
    before = empty_guest.state()
    for _ in range(_ROUNDS):
        empty_guest.attach(device)
        empty_guest.detach(device.volume.volume_id, retry_interval={"seconds": 1})
    after = empty_guest.state()
    assert after.persistent == before.persistent
    assert after.effective == before.effective
