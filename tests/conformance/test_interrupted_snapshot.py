"""Copies of a disk of a running QEMU that are cut short: no image, no part of one, no job left."""

import subprocess
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from virtrpc.v1 import image_pb2, image_pb2_grpc, operation_pb2, types_pb2
from virtrpc.v1 import instance_pb2 as pb
from virtrpc.v1.operation_pb2 import Operation
from virtrpc.v1.spec_pb2 import InstanceSpec

from tests.conformance.conftest import state_of
from tests.conformance.test_snapshot import SUCCEEDED, begin, images, incoming, power, snapshot
from tests.daemon import DaemonProcess
from tests.instances import destroyed, finished, small_spec, succeeded
from tests.machines import qemu_pids

pytestmark = pytest.mark.libvirt
DISK_MIB, STORE_MIB, LEFT_MIB = 192, 400, 32
RUNNING = types_pb2.POWER_STATE_RUNNING


@dataclass
class Host:
    """A daemon with a small image store of its own."""

    daemon: DaemonProcess

    def __post_init__(self) -> None:
        self.connection = self.daemon.connect()

    def spawn(self) -> str:
        instance_id = str(uuid.uuid4())
        request = pb.SpawnInstanceRequest(instance_id=instance_id, spec=_spec())
        succeeded(self.connection, self.connection.instances.SpawnInstance(request))
        return instance_id

    def copying(self, instance_id: str) -> Operation:
        """A snapshot that is about to be copied, being copied, or on a fast host has just been."""
        operation = begin(self.connection, instance_id, f"cut-short-{uuid.uuid4().hex[:8]}")
        request = operation_pb2.WatchOperationRequest(operation_id=operation.operation_id)
        for response in self.connection.operations.WatchOperation(request):
            if any(step.name == "copy" for step in response.operation.steps):
                return operation
        raise AssertionError("the copy was not seen")

    def was_cut_short(self, operation: Operation, reason: str) -> None:
        """It ended so and has left nothing, or was faster and is whole."""
        ended = finished(self.connection, operation)
        if ended.state == SUCCEEDED:
            made = pb.SnapshotInstanceResponse()
            ended.result.Unpack(made)
            assert images(self.connection)[made.image_id].checksum == made.checksum
            request = image_pb2.DeleteImageRequest(image_id=made.image_id)
            image_pb2_grpc.ImageServiceStub(self.connection.channel).DeleteImage(request)
        else:
            assert (ended.error.reason, "not_undone" in ended.error.metadata) == (reason, False)
        self.nothing_is_left()

    def nothing_is_left(self) -> None:
        assert incoming(self.daemon) == []
        assert not [name for name in images(self.connection) if name.startswith("cut-short")]


def _spec() -> InstanceSpec:
    """It has a disk, which it does not boot from."""
    spec = small_spec(backend="libvirt")
    spec.image.image_id = "full"
    return spec


@pytest.fixture(scope="module")
def host(
    short_folder: Callable[[], Path], guest_images: Callable[[DaemonProcess], None]
) -> Iterator[Host]:
    daemon = DaemonProcess(short_folder(), backend="libvirt")
    daemon.image_dir.mkdir(parents=True)
    options = f"size={STORE_MIB}m,mode=711"
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(daemon.image_dir)]
    subprocess.run(mount, check=True)
    try:
        guest_images(daemon)
        _make_full_disk(daemon)
        with daemon.start():
            yield Host(daemon)
    finally:
        subprocess.run(["umount", "-l", str(daemon.image_dir)], check=True)


def _make_full_disk(daemon: DaemonProcess) -> None:
    """Small in the store, as it is compressed; its copies are not."""
    plain = daemon.folder / "full.raw"
    plain.write_bytes(b"full" * (DISK_MIB << 18))
    target = daemon.image_dir / "full.qcow2"
    convert = ["qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", str(plain), str(target)]
    subprocess.run(convert, check=True)
    plain.unlink()


@pytest.fixture(scope="module")
def instance_id(host: Host) -> Iterator[str]:
    made = host.spawn()
    yield made
    host.connection = host.daemon.connect()
    destroyed(host.connection, made)


@pytest.fixture
def full_store(host: Host) -> Iterator[None]:
    """Room for less than a copy, and more than the image that it is a copy of."""
    filler = host.daemon.image_dir / "filler.raw"
    usage = subprocess.run(
        ["df", "-m", "--output=avail", str(host.daemon.image_dir)],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    with filler.open("wb") as file:
        file.write(bytes((int(usage.stdout.split()[-1]) - LEFT_MIB) << 20))
    yield
    filler.unlink()


def test_a_copy_is_cancelled(host: Host, instance_id: str) -> None:
    operation = host.copying(instance_id)
    host.connection.operations.CancelOperation(
        operation_pb2.CancelOperationRequest(operation_id=operation.operation_id)
    )
    host.was_cut_short(operation, "CANCELLED")
    assert state_of(host.connection, instance_id).power_state == RUNNING


def test_a_copy_whose_daemon_was_killed_is_undone(host: Host, instance_id: str) -> None:
    (pid,) = qemu_pids(instance_id)
    operation = host.copying(instance_id)
    host.daemon.kill()
    host.daemon.start()
    host.connection = host.daemon.connect()
    host.was_cut_short(operation, "DAEMON_RESTARTED")
    assert qemu_pids(instance_id) == [pid]
    with snapshot(host.connection, instance_id) as response:
        assert response.live


def test_a_destroy_pre_empts_a_copy(host: Host) -> None:
    instance_id = host.spawn()
    operation = host.copying(instance_id)
    destroyed(host.connection, instance_id)
    host.was_cut_short(operation, "CANCELLED")
    assert qemu_pids(instance_id) == []


@pytest.mark.parametrize("live", [True, False], ids=["live", "off"])
@pytest.mark.usefixtures("full_store")
def test_a_full_store_keeps_no_part(host: Host, instance_id: str, live: bool) -> None:
    power(host.connection, instance_id, on=live)
    operation = finished(host.connection, begin(host.connection, instance_id, "cut-short"))
    assert operation.error.reason == "NO_ROOM"
    assert "not_undone" not in operation.error.metadata
    assert any(step.name == "copy" for step in operation.steps)
    host.nothing_is_left()
    power(host.connection, instance_id, on=True)
