"""A guest that outlives its daemons, and those: the real one, and some that die."""

import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from virtrpc.v1 import operation_pb2, spec_pb2, volume_pb2
from virtrpc.v1.instance_pb2 import SpawnInstanceRequest
from virtrpc.v1.spec_pb2 import BlockDevice

from tests.conformance.volume.conftest import MIB, TIMEOUT_S, VolumeGuest, file_volume
from tests.crash.lives import REAL
from tests.daemon import Connection, DaemonProcess
from tests.instances import console_until, destroyed, finished, small_spec, succeeded

NAME = "lasting"
READY = b"virtrpc guest ready"


def life(folder: Path, moment: str = "") -> DaemonProcess:
    """The real daemon, or one that dies at that moment; not started yet."""
    program = (sys.executable, "-m", "tests.libvirt.dying_amid", moment) if moment else REAL
    arguments = [f"--volume-dir={folder / 'volumes'}"]
    return DaemonProcess(folder, backend="libvirt", arguments=arguments, program=program)


@contextmanager
def lasting_guest(folder: Path) -> Iterator[str]:
    """The id of a guest that has booted."""
    instance_id = str(uuid.uuid4())
    spec = small_spec(backend="libvirt", name=NAME)
    request = SpawnInstanceRequest(instance_id=instance_id, spec=spec)
    with life(folder) as daemon, daemon.start().connect() as connection:
        succeeded(connection, connection.instances.SpawnInstance(request, timeout=TIMEOUT_S))
        console_until(connection, instance_id, READY)
    yield instance_id
    with life(folder) as daemon, daemon.start().connect() as connection:
        destroyed(connection, instance_id)


def new_volume(folder: Path) -> BlockDevice:
    """A volume of a file that is new and has a MiB."""
    path = folder / "volumes" / f"{len(list(folder.glob('volumes/*')))}.raw"
    path.write_bytes(bytes(MIB))
    return file_volume(path)


def begun_swap(
    connection: Connection, instance_id: str, folder: Path, bus: str = "VIRTIO"
) -> tuple[operation_pb2.Operation, str]:
    """A swap of a disk that comes by that bus, and the new volume's id."""
    device, new = new_volume(folder), new_volume(folder).volume
    device.bus = spec_pb2.DiskBus.Value(f"DISK_BUS_{bus}")
    VolumeGuest(connection, instance_id, "libvirt").attach(device)
    request = volume_pb2.SwapVolumeRequest(
        instance_id=instance_id,
        old_volume_id=device.volume.volume_id,
        new_volume=new,
        request_id=str(uuid.uuid4()),
    )
    return connection.volumes.SwapVolume(request, timeout=TIMEOUT_S), new.volume_id


def taken(guest: VolumeGuest, volume_id: str) -> str:
    """The id of a snapshot that was taken."""
    snapshot_id = str(uuid.uuid4())
    operation = begun_snapshot(guest, volume_id, snapshot_id)
    assert finished(guest.connection, operation).state == operation_pb2.OPERATION_STATE_SUCCEEDED
    return snapshot_id


def begun_snapshot(guest: VolumeGuest, volume_id: str, snapshot_id: str) -> operation_pb2.Operation:
    """The operation of one."""
    request = volume_pb2.CreateVolumeSnapshotRequest(
        instance_id=guest.instance_id,
        volume_id=volume_id,
        snapshot_id=snapshot_id,
        request_id=str(uuid.uuid4()),
    )
    return guest.connection.volumes.CreateVolumeSnapshot(request, timeout=TIMEOUT_S)


def begun_merge(
    guest: VolumeGuest, volume_id: str, snapshot_id: str, merge: Any, bandwidth: int = 0
) -> operation_pb2.Operation:
    """The operation of a snapshot's deletion."""
    request = volume_pb2.DeleteVolumeSnapshotRequest(
        instance_id=guest.instance_id,
        volume_id=volume_id,
        snapshot_id=snapshot_id,
        merge=merge,
        bandwidth_bytes_per_s=bandwidth,
        request_id=str(uuid.uuid4()),
    )
    return guest.connection.volumes.DeleteVolumeSnapshot(request, timeout=TIMEOUT_S)
