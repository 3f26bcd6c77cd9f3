"""Instances that boot from a volume: made, and made anew with another image written to it."""

import os
import shutil
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from virtrpc.v1 import instance_pb2 as pb
from virtrpc.v1 import types_pb2
from virtrpc.v1.instance_pb2 import AttachedDisk, Instance
from virtrpc.v1.operation_pb2 import Operation
from virtrpc.v1.spec_pb2 import ImageSource, InstanceSpec, VolumeConnection

from tests.conformance.conftest import state_of
from tests.conformance.volume.conftest import MIB, VolumeGuest, file_volume
from tests.conftest import MakeDaemon
from tests.daemon import Connection, DaemonProcess
from tests.instances import (
    TIMEOUT_S,
    console_until,
    finished,
    in_phase,
    small_spec,
    spawned,
    succeeded,
)
from tests.refusals import refused
from tests.storage_servers import slow_nbd_server

MakeFile = Callable[..., Path]
INVALID = grpc.StatusCode.INVALID_ARGUMENT
SMALL, LARGE = "small", "large"
READY = b"virtrpc guest ready"
RUNNING = types_pb2.POWER_STATE_RUNNING


@pytest.fixture(scope="module", autouse=True)
def images(daemon: DaemonProcess) -> Iterator[None]:
    """One that fits on the volumes here, and one that does not."""
    paths = {daemon.image_dir / f"{SMALL}.raw": MIB, daemon.image_dir / f"{LARGE}.raw": 64 * MIB}
    for path, size_bytes in paths.items():
        path.write_bytes(b"from the image" + bytes(size_bytes - 14))
    yield
    for path in paths:
        path.unlink()


def spec_on(path: Path, backend: str, **volume: Any) -> InstanceSpec:
    """Boots from a file as a volume, and has disks of its own beside it."""
    spec = small_spec(backend=backend)
    spec.ClearField("image")
    spec.flavor.swap_mib, spec.guest.hostname = 1, "told.example"
    device = file_volume(path, **volume)
    device.boot_index = 0
    spec.block_devices.add().CopyFrom(device)
    return spec


def disks(instance: Instance, machine: str = "persistent") -> dict[str, AttachedDisk]:
    return {disk.device_name: disk for disk in getattr(instance, machine).disks}


def begin(connection: Connection, instance_id: str, **fields: Any) -> Operation:
    wanted = {"image": ImageSource(image_id=SMALL), "reimage_boot_volume": True, **fields}
    request = pb.RebuildInstanceRequest(instance_id=instance_id, **wanted)
    return connection.instances.RebuildInstance(request, timeout=TIMEOUT_S)


def rebuilt(connection: Connection, instance_id: str, **fields: Any) -> Instance:
    return succeeded(connection, begin(connection, instance_id, **fields))


@pytest.fixture(scope="module")
def on_volume(daemon: DaemonProcess, backend: str) -> Iterator[tuple[str, Path]]:
    """An instance that boots from an empty file, and the file."""
    path = daemon.volume_dir / "boot.raw"
    path.write_bytes(b"before" + bytes(8 * MIB - 6))
    with daemon.connect() as connection, spawned(connection, spec_on(path, backend)) as made:
        yield made, path
    path.unlink()


def test_a_boot_volume_stays_unless_it_is_said(
    connection: Connection, on_volume: tuple[str, Path]
) -> None:
    instance_id, path = on_volume
    before = state_of(connection, instance_id)
    roles = {disk.device_name: disk.role for disk in before.persistent.disks}
    assert roles == {"vda": "volume", "vdb": "swap", "vdz": "config"}
    after = rebuilt(connection, instance_id, image=ImageSource(), reimage_boot_volume=False)
    assert (after.power_state, disks(after)) == (RUNNING, disks(before))
    assert path.read_bytes().startswith(b"before")


def test_a_boot_volume_is_written_with_the_image(
    connection: Connection, backend: str, on_volume: tuple[str, Path]
) -> None:
    instance_id, path = on_volume
    before = state_of(connection, instance_id)
    after = rebuilt(connection, instance_id)
    assert (after.power_state, disks(after)) == (RUNNING, disks(before))
    assert disks(after, "effective") == disks(before, "effective")
    assert after.spec == before.spec
    if backend == "libvirt":
        assert path.read_bytes() == b"from the image" + bytes(8 * MIB - 14)


def test_what_cannot_be_written_is_refused(
    connection: Connection, on_volume: tuple[str, Path]
) -> None:
    instance_id, _ = on_volume
    for fields, at in (
        ({"image": ImageSource()}, "image.image_id"),
        ({"reimage_boot_volume": False}, "reimage_boot_volume"),
    ):
        with refused(INVALID, "INVALID_REQUEST") as refusal:
            begin(connection, instance_id, **fields, validate_only=True)
        assert refusal.fields == [at]
    with refused(grpc.StatusCode.NOT_FOUND, "IMAGE_NOT_FOUND") as refusal:
        begin(connection, instance_id, image=ImageSource(image_id="no"), validate_only=True)
    assert refusal.fields == ["image.image_id"]


@pytest.mark.parametrize("backend", ["libvirt"], indirect=True)
def test_an_image_that_does_not_fit_changes_nothing(
    connection: Connection, on_volume: tuple[str, Path]
) -> None:
    """Found before when the machine runs; else when it has the volume open, and taken back."""
    instance_id, path = on_volume
    before, content = state_of(connection, instance_id), path.read_bytes()
    large = ImageSource(image_id=LARGE)
    with refused(INVALID, "ROOT_DISK_TOO_SMALL") as refusal:
        begin(connection, instance_id, image=large, validate_only=True)
    assert refusal.fields == ["image"]
    off = pb.PowerOffInstanceRequest(instance_id=instance_id, timeout=Duration(seconds=0))
    connection.instances.PowerOffInstance(off, timeout=TIMEOUT_S)
    ended = finished(connection, begin(connection, instance_id, image=large))
    assert ended.error.reason == "ROOT_DISK_TOO_SMALL"
    after = state_of(connection, instance_id)
    assert after.power_state == types_pb2.POWER_STATE_SHUTDOWN
    assert (after.spec, after.persistent) == (before.spec, before.persistent)
    assert path.read_bytes() == content
    assert rebuilt(connection, instance_id).power_state == RUNNING


@pytest.mark.parametrize("backend", ["fake"], indirect=True)
def test_what_others_may_have_open_is_not_written(
    connection: Connection, backend: str, make_file: MakeFile
) -> None:
    with spawned(connection, spec_on(make_file(), backend, multi_attach=True)) as instance_id:
        with refused(grpc.StatusCode.UNIMPLEMENTED, "CAPABILITY_MISSING") as refusal:
            begin(connection, instance_id, validate_only=True)
        assert refusal.metadata["capability"] == "reimage_boot_volume"


@pytest.mark.parametrize("backend", ["libvirt"], indirect=True)
def test_a_guest_boots_what_was_written(
    daemon: DaemonProcess, connection: Connection, backend: str, make_file: MakeFile
) -> None:
    """First the image as the volume's own bytes, then the same written where they have gone."""
    path = make_file(format_="qcow2")
    shutil.copyfile(daemon.image_dir / "guest.qcow2", path)
    with spawned(connection, spec_on(path, backend)) as instance_id:
        at = len(console_until(connection, instance_id, READY))
        VolumeGuest(connection, instance_id, backend).power_off()
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(path), "96M"], check=True)
        rebuilt(connection, instance_id, image=ImageSource(image_id="guest"))
        console_until(connection, instance_id, READY, offset=at)


@pytest.mark.parametrize("backend", ["libvirt"], indirect=True)
def test_a_daemon_that_dies_while_it_writes_begins_again(
    make_daemon: MakeDaemon, tmp_path: Path
) -> None:
    """The server is slow enough for that; the machine that is paused meanwhile outlives it."""
    daemon = make_daemon(backend="libvirt")
    (daemon.image_dir / f"{SMALL}.raw").write_bytes(os.urandom(4 * MIB))
    spec = small_spec(backend="libvirt")
    spec.ClearField("image")
    with slow_nbd_server(size_bytes=8 * MIB, bits_per_s=8 * MIB) as port:
        volume = VolumeConnection(volume_id=str(uuid.uuid4()))
        volume.nbd.host, volume.nbd.port = "127.0.0.1", port
        spec.block_devices.add(boot_index=0).volume.CopyFrom(volume)
        with daemon.start().connect() as connection, spawned(connection, spec) as instance_id:
            operation = begin(connection, instance_id)
            in_phase(connection, operation, "volume")
            daemon.kill()
            daemon.start()
            assert succeeded(connection, operation).power_state == RUNNING
            left = (daemon.state_dir / "instances").rglob("boot-volume*")
            assert not list(left)
        exported, copy = f"nbd://127.0.0.1:{port}", tmp_path / "copy"
        convert = ["qemu-img", "convert", "-f", "raw", "-O", "raw", exported, str(copy)]
        subprocess.run(convert, check=True)
    written = (daemon.image_dir / f"{SMALL}.raw").read_bytes()
    assert copy.read_bytes() == written + bytes(4 * MIB)
