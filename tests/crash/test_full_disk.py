"""The disk of the state directory is full: nothing new begins, and what has begun ends."""

import subprocess
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import grpc
import pytest
from virtrpc.v1 import instance_pb2, operation_pb2

from tests.conftest import MakeDaemon
from tests.daemon import Connection, DaemonProcess
from tests.instances import TIMEOUT_S, destroyed, finished, small_spec, spawned
from tests.refusals import refused

SIZE = "16m"


@pytest.fixture
def disk(short_folder: Callable[[], Path]) -> Iterator[Path]:
    """A small disk of its own."""
    folder = short_folder()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", folder], check=True)
    folder.chmod(0o755)
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.fixture
def daemon(disk: Path, make_daemon: MakeDaemon) -> DaemonProcess:
    """A fake whose state is on the small disk."""
    return make_daemon(folder=disk).start()


@pytest.fixture
def connection(daemon: DaemonProcess) -> Iterator[Connection]:
    with daemon.connect() as connected:
        yield connected


def fill(disk: Path) -> Path:
    """A file that takes all the room there is."""
    path = disk / "full"
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))
    return path


def pause(connection: Connection, instance_id: str) -> None:
    request = instance_pb2.PauseInstanceRequest(instance_id=instance_id)
    connection.instances.PauseInstance(request, timeout=TIMEOUT_S)


def power_state(connection: Connection, instance_id: str) -> int:
    request = instance_pb2.GetInstanceRequest(instance_id=instance_id)
    return connection.instances.GetInstance(request, timeout=TIMEOUT_S).instance.power_state


def test_nothing_new_begins_and_reads_go_on(disk: Path, connection: Connection) -> None:
    with spawned(connection, small_spec(backend="fake")) as instance_id:
        before = power_state(connection, instance_id)
        filling = fill(disk)
        for _ in range(3):
            with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "JOURNAL_UNWRITABLE"):
                pause(connection, instance_id)
        assert power_state(connection, instance_id) == before
        filling.unlink()
        pause(connection, instance_id)


def test_end_of_what_has_begun_is_remembered(
    disk: Path, daemon: DaemonProcess, connection: Connection
) -> None:
    spec = small_spec(backend="fake")
    spec.labels["fake/spawn_instance.start"] = "delay:1"
    request = instance_pb2.SpawnInstanceRequest(instance_id=str(uuid.uuid4()), spec=spec)
    operation = connection.instances.SpawnInstance(request, timeout=TIMEOUT_S)
    watch = operation_pb2.WatchOperationRequest(operation_id=operation.operation_id)
    for update in connection.operations.WatchOperation(watch, timeout=TIMEOUT_S):
        if any(step.name == "start" for step in update.operation.steps):
            fill(disk)
            break
    ended = finished(connection, operation)
    daemon.kill()
    with daemon.start().connect() as again:
        get = operation_pb2.GetOperationRequest(operation_id=operation.operation_id)
        remembered = again.operations.GetOperation(get, timeout=TIMEOUT_S)
        assert (remembered.state, remembered.error) == (ended.state, ended.error)
        (disk / "full").unlink()
        destroyed(again, request.instance_id)


def test_daemon_starts_on_a_full_disk(
    disk: Path, daemon: DaemonProcess, connection: Connection
) -> None:
    daemon.kill()
    for path in daemon.state_dir.glob("events.sqlite*"):
        path.unlink()  # all of the log: what the daemon removes of it would be room again
    fill(disk)
    with daemon.start().connect() as again:
        with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "JOURNAL_UNWRITABLE"):
            spec = small_spec(backend="fake")
            request = instance_pb2.SpawnInstanceRequest(instance_id=str(uuid.uuid4()), spec=spec)
            again.instances.SpawnInstance(request, timeout=TIMEOUT_S)
        (disk / "full").unlink()
        with spawned(again, small_spec(backend="fake")):
            pass
