"""Shares: which are refused, and what is told of those that are there."""

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from virtrpc.v1 import host_pb2
from virtrpc.v1 import instance_pb2 as pb
from virtrpc.v1.instance_pb2 import Instance

from tests.conformance.conftest import state_of
from tests.daemon import Connection, DaemonProcess
from tests.instances import small_spec, spawned
from tests.refusals import refused

SHARE_ID = "5a3e0000-0000-4000-8000-000000000003"


@pytest.fixture(scope="module")
def off(daemon: DaemonProcess, backend: str) -> Iterator[str]:
    """An instance that is off."""
    spec = small_spec(backend=backend)
    with daemon.connect() as connection, spawned(connection, spec) as instance_id:
        request = pb.PowerOffInstanceRequest(instance_id=instance_id)
        request.timeout.FromSeconds(0)
        connection.instances.PowerOffInstance(request)
        yield instance_id


@pytest.fixture
def folder(daemon: DaemonProcess) -> Path:
    """A directory that may be shared."""
    made = daemon.sources / f"share-{uuid.uuid4().hex[:8]} <&'"
    made.mkdir()
    return made


def mount(connection: Connection, instance_id: str, path: Path | str, **fields: Any) -> Instance:
    request = pb.MountShareRequest(
        **{"share_id": SHARE_ID, "tag": "docs", **fields}, instance_id=instance_id, path=str(path)
    )
    return connection.instances.MountShare(request).instance


def umount(connection: Connection, instance_id: str, share_id: str = SHARE_ID) -> bool:
    request = pb.UmountShareRequest(instance_id=instance_id, share_id=share_id)
    return connection.instances.UmountShare(request).still_used


def test_share_is_told_and_mounted_once(connection: Connection, off: str, folder: Path) -> None:
    before = state_of(connection, off).persistent
    for _ in range(2):
        (share,) = mount(connection, off, folder).shares
        assert (share.share_id, share.tag, share.path) == (SHARE_ID, "docs", str(folder))
    assert list(state_of(connection, off).shares) == [share]
    for _ in range(2):
        assert not umount(connection, off)
    after = state_of(connection, off)
    assert (list(after.shares), after.persistent) == ([], before)


def test_tag_and_id_are_taken_once(connection: Connection, off: str, folder: Path) -> None:
    mount(connection, off, folder)
    with refused(grpc.StatusCode.ALREADY_EXISTS, "TAG_TAKEN"):
        mount(connection, off, folder, share_id=str(uuid.uuid4()))
    with refused(grpc.StatusCode.ALREADY_EXISTS, "SHARE_DIFFERS"):
        mount(connection, off, folder, tag="other")
    umount(connection, off)


def test_umount_tells_who_still_uses_it(
    connection: Connection, backend: str, off: str, folder: Path
) -> None:
    with spawned(connection, small_spec(backend=backend)) as other:
        request = pb.PowerOffInstanceRequest(instance_id=other)
        request.timeout.FromSeconds(0)
        connection.instances.PowerOffInstance(request)
        for instance_id in (off, other):
            mount(connection, instance_id, folder)
        assert umount(connection, off)
        assert not umount(connection, other)


def test_memory_is_not_saved_without_its_shares(
    connection: Connection, off: str, folder: Path
) -> None:
    mount(connection, off, folder)
    connection.instances.PowerOnInstance(pb.PowerOnInstanceRequest(instance_id=off))
    suspend = pb.SuspendInstanceRequest(instance_id=off, validate_only=True)
    with refused(grpc.StatusCode.FAILED_PRECONDITION, "SHARE_NOT_SAVED"):
        connection.instances.SuspendInstance(suspend)
    request = pb.PowerOffInstanceRequest(instance_id=off)
    request.timeout.FromSeconds(0)
    connection.instances.PowerOffInstance(request)
    umount(connection, off)


def test_path_that_is_not_allowed_is_refused(
    connection: Connection, daemon: DaemonProcess, off: str, folder: Path
) -> None:
    (folder / "out").symlink_to(daemon.state_dir)
    (folder / "file").touch()
    for path in (daemon.state_dir, folder / "out", folder / ".." / ".." / "state"):
        with refused(grpc.StatusCode.INVALID_ARGUMENT, "PATH_NOT_ALLOWED") as refusal:
            mount(connection, off, path)
        assert refusal.fields == ["path"]
    with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST"):
        mount(connection, off, folder / "file")
    with refused(grpc.StatusCode.NOT_FOUND, "PATH_NOT_FOUND"):
        mount(connection, off, folder / "none")


def test_share_to_read_only_is_made_or_refused_as_the_capabilities_say(
    connection: Connection, off: str, folder: Path
) -> None:
    reply = connection.hosts.GetCapabilities(host_pb2.GetCapabilitiesRequest())
    (capability,) = (item for item in reply.capabilities if item.name == "virtiofs_read_only")
    if capability.supported:
        assert mount(connection, off, folder, read_only=True).shares[0].read_only
        umount(connection, off)
        return
    with refused(grpc.StatusCode.UNIMPLEMENTED, "CAPABILITY_MISSING") as refusal:
        mount(connection, off, folder, read_only=True)
    assert refusal.metadata["capability"] == "virtiofs_read_only"
