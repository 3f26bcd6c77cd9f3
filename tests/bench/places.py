"""Where a measurement runs: a folder of its own, daemons and instances in it."""

import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
from virtrpc.v1 import instance_pb2 as pb
from virtrpc.v1.operation_pb2 import (
    OPERATION_STATE_SUCCEEDED,
    Operation,
    OperationState,
    WaitOperationRequest,
)
from virtrpc.v1.spec_pb2 import Flavor, ImageSource, InstanceSpec, InterfaceSpec, UserModeNetwork

from tests.daemon import Connection, DaemonProcess
from tests.images import guest_cmdline, place_guest_images

GUEST_MEMORY_MIB = 96


class SpawnError(Exception):
    """An instance that a measurement needs was not spawned."""


@contextmanager
def workspace() -> Iterator[Path]:
    """A folder that QEMU, another user, may pass through; it goes afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="vb-"))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        _end_guests(folder)
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def fake_daemon() -> Iterator[DaemonProcess]:
    """A daemon whose hypervisor takes no time."""
    with workspace() as folder, DaemonProcess(folder, backend="fake") as daemon:
        yield daemon.start()


@contextmanager
def embedded_daemon() -> Iterator[DaemonProcess]:
    """A daemon with the embedded QEMU and the images of the test guest."""
    with workspace() as folder, DaemonProcess(folder, backend="libvirt") as daemon:
        place_guest_images(daemon.image_dir)
        yield daemon.start()


def fake_spec(name: str) -> InstanceSpec:
    """An instance of the fake's built-in image."""
    return InstanceSpec(
        name=name,
        flavor=Flavor(vcpus=1, memory_mib=GUEST_MEMORY_MIB),
        image=ImageSource(image_id="demo"),
        interfaces=[_interface()],
    )


def guest_spec(name: str) -> InstanceSpec:
    """The test guest, by direct boot, with a root disk over its image."""
    return InstanceSpec(
        name=name,
        flavor=Flavor(vcpus=1, memory_mib=GUEST_MEMORY_MIB),
        image=ImageSource(
            image_id="guest",
            kernel_image_id="kernel",
            ramdisk_image_id="ramdisk",
            kernel_args=guest_cmdline(),
        ),
        interfaces=[_interface()],
    )


def spawn(connection: Connection, spec: InstanceSpec) -> str:
    """Spawns an instance and waits for the end of it; gives its id."""
    instance_id = str(uuid.uuid4())
    request = pb.SpawnInstanceRequest(instance_id=instance_id, spec=spec)
    ended(connection, connection.instances.SpawnInstance(request))
    return instance_id


def ended(connection: Connection, operation: Operation) -> Operation:
    """Waits for the end of an operation; raises SpawnError where it fails."""
    request = WaitOperationRequest(operation_id=operation.operation_id)
    operation = connection.operations.WaitOperation(request)
    if operation.state != OPERATION_STATE_SUCCEEDED:
        state = OperationState.Name(operation.state)
        raise SpawnError(f"{operation.verb}: {state} {operation.error.message}")
    return operation


def destroy(connection: Connection, instance_id: str) -> None:
    """Destroys an instance with its files."""
    connection.instances.DestroyInstance(
        pb.DestroyInstanceRequest(instance_id=instance_id, destroy_disks=True)
    )


def resident_bytes(daemon: DaemonProcess) -> int:
    """Memory that a daemon holds (RSS)."""
    assert daemon.process is not None
    resident: int = psutil.Process(daemon.process.pid).memory_info().rss
    return resident


def _end_guests(folder: Path) -> None:
    """Guests outlive their daemon, and so a measurement that was broken off."""
    for process in psutil.process_iter(["name", "cmdline"]):
        name, words = process.info["name"] or "", process.info["cmdline"] or ()
        if name.startswith("qemu-system") and any(f"{folder}/" in word for word in words):
            with suppress(psutil.NoSuchProcess):
                process.kill()


def _interface() -> InterfaceSpec:
    return InterfaceSpec(port_id=str(uuid.uuid4()), user=UserModeNetwork())
