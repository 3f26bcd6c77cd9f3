"""A file by which two hosts find out that they see the same directory of an instance."""

import uuid
from collections.abc import Iterator

import pytest
from virtrpc.v1 import migration_pb2 as pb

from tests.conformance.conftest import Guest
from tests.daemon import Connection

TIMEOUT_S = 20


@pytest.fixture
def mark(connection: Connection, guest: Guest) -> Iterator[pb.SharedStorageMark]:
    """The mark of an instance, removed after the test."""
    request = pb.CheckSharedStorageLocalRequest(instance_id=guest.instance_id)
    yield connection.migrations.CheckSharedStorageLocal(request, timeout=TIMEOUT_S).mark
    written = connection.migrations.CheckSharedStorageLocal(request, timeout=TIMEOUT_S).mark
    removed(connection, guest.instance_id, written)


def removed(connection: Connection, instance_id: str, mark: pb.SharedStorageMark) -> bool:
    """Whether there was anything to remove."""
    request = pb.CleanupSharedStorageCheckRequest(instance_id=instance_id, mark=mark)
    reply = connection.migrations.CleanupSharedStorageCheck(request, timeout=TIMEOUT_S)
    return not reply.already_clean


def seen(connection: Connection, instance_id: str, mark: pb.SharedStorageMark) -> bool:
    request = pb.CheckSharedStorageRemoteRequest(instance_id=instance_id, mark=mark)
    reply = connection.migrations.CheckSharedStorageRemote(request, timeout=TIMEOUT_S)
    return bool(reply.shared)


def test_mark_is_seen_until_it_is_removed(
    connection: Connection, guest: Guest, mark: pb.SharedStorageMark
) -> None:
    assert seen(connection, guest.instance_id, mark)
    assert removed(connection, guest.instance_id, mark)
    assert not seen(connection, guest.instance_id, mark)
    assert not removed(connection, guest.instance_id, mark)


def test_repeat_names_the_same_mark(
    connection: Connection, guest: Guest, mark: pb.SharedStorageMark
) -> None:
    request = pb.CheckSharedStorageLocalRequest(instance_id=guest.instance_id)
    again = connection.migrations.CheckSharedStorageLocal(request, timeout=TIMEOUT_S).mark
    assert again == mark


def test_mark_of_other_content_is_not_seen_nor_removed(
    connection: Connection, guest: Guest, mark: pb.SharedStorageMark
) -> None:
    forged = pb.SharedStorageMark(file_name=mark.file_name, content="x" * 32)
    assert not seen(connection, guest.instance_id, forged)
    assert not removed(connection, guest.instance_id, forged)
    assert seen(connection, guest.instance_id, mark)


def test_other_files_are_no_marks(connection: Connection, guest: Guest) -> None:
    forged = pb.SharedStorageMark(file_name="config", content="x" * 32)
    assert not seen(connection, guest.instance_id, forged)
    assert not removed(connection, guest.instance_id, forged)


def test_instance_without_a_directory_shares_nothing(connection: Connection) -> None:
    request = pb.CheckSharedStorageLocalRequest(instance_id=str(uuid.uuid4()))
    reply = connection.migrations.CheckSharedStorageLocal(request, timeout=TIMEOUT_S)
    assert not reply.HasField("mark")
