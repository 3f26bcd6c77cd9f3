"""Two fakes give each other instances by the road of real hosts, as controllers see it."""

import socket
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from virtrpc.v1 import console_pb2, instance_pb2, operation_pb2, spec_pb2, types_pb2
from virtrpc.v1 import migration_pb2 as pb
from virtrpc.v1.migration_pb2 import LiveMigrationOptions, MigrationPhase

from tests.attached import Tunnelled
from tests.instances import console_until, destroyed, small_spec, spawned
from tests.migrations import (
    Host,
    begun,
    ended,
    instance_at,
    live_request,
    migrated,
    progress_of,
)
from tests.refusals import refused

TIMEOUT_S = 20.0
SLOW = {"fake/live_migrate_instance.pass": "delay:20"}


@pytest.fixture
def guest(hosts: tuple[Host, Host]) -> Iterator[str]:
    """The id of an instance on the first host."""
    with spawned(hosts[0].connection, small_spec(backend="fake")) as instance_id:
        yield instance_id
        destroyed(hosts[1].connection, instance_id)


@pytest.fixture
def slow_guest(hosts: tuple[Host, Host]) -> Iterator[str]:
    """One whose memory goes over so slowly that nobody waits for it."""
    spec = small_spec(backend="fake")
    spec.labels.update(SLOW)
    with spawned(hosts[0].connection, spec) as instance_id:
        yield instance_id
        destroyed(hosts[1].connection, instance_id)


def test_instance_goes_there_and_back(hosts: tuple[Host, Host], guest: str) -> None:
    here, there = hosts
    before = instance_at(here, guest)
    request = live_request(guest, there)
    result = migrated(here, request)
    assert result.migration_id == request.migration_id
    assert result.destination_uri == there.uri
    assert result.memory_transferred_bytes > 0
    assert result.HasField("downtime")
    with refused(grpc.StatusCode.NOT_FOUND, "INSTANCE_NOT_FOUND") as refusal:
        read = instance_pb2.GetInstanceRequest(instance_id=guest)
        here.connection.instances.GetInstance(read, timeout=TIMEOUT_S)
    assert refusal.metadata["host_uri"] == there.uri
    with refused(grpc.StatusCode.NOT_FOUND, "INSTANCE_NOT_FOUND") as refusal:
        pause = instance_pb2.PauseInstanceRequest(instance_id=guest)
        here.connection.instances.PauseInstance(pause, timeout=TIMEOUT_S)
    assert refusal.metadata["host_uri"] == there.uri
    after = instance_at(there, guest)
    assert before is not None and after is not None
    assert after.power_state == types_pb2.POWER_STATE_RUNNING
    assert (after.name, after.created_at, after.managed) == (before.name, before.created_at, True)
    migrated(there, live_request(guest, here))
    assert instance_at(there, guest) is None
    assert instance_at(here, guest) is not None


def test_repeat_by_migration_id_gives_the_first_outcome(
    hosts: tuple[Host, Host], guest: str
) -> None:
    here, there = hosts
    request = live_request(guest, there)
    first = migrated(here, request)
    again = migrated(here, request)
    assert again.migration_id == first.migration_id
    assert again.downtime == first.downtime


def test_watcher_sees_the_phases_to_the_end(hosts: tuple[Host, Host], guest: str) -> None:
    here, there = hosts
    request = live_request(guest, there)
    migrated(here, request)
    (last,) = progress_of(here, guest, request.migration_id)
    assert last.done
    assert last.phase == MigrationPhase.MIGRATION_PHASE_SUCCEEDED
    assert last.memory.total_bytes
    assert not last.memory.remaining_bytes
    (arrived,) = progress_of(there, guest, request.migration_id)
    assert arrived.phase == MigrationPhase.MIGRATION_PHASE_SUCCEEDED


def test_watcher_may_come_before_the_first_phase(hosts: tuple[Host, Host], guest: str) -> None:
    here, there = hosts
    request = live_request(guest, there)
    here.connection.migrations.LiveMigrateInstance(request, timeout=TIMEOUT_S)
    last = progress_of(here, guest, "")[-1]
    assert last.migration_id == request.migration_id
    assert last.done


def test_abort_leaves_the_instance_where_it_is(hosts: tuple[Host, Host], slow_guest: str) -> None:
    here, there = hosts
    request = live_request(slow_guest, there)
    operation = begun(here, request)
    aborted = here.connection.migrations.AbortLiveMigration(
        pb.AbortLiveMigrationRequest(instance_id=slow_guest), timeout=TIMEOUT_S
    )
    assert aborted.migration_id == request.migration_id
    again = here.connection.migrations.AbortLiveMigration(
        pb.AbortLiveMigrationRequest(instance_id=slow_guest), timeout=TIMEOUT_S
    )
    assert again.already_aborted
    ending = here.connection.operations.WaitOperation(
        operation_pb2.WaitOperationRequest(operation_id=operation.operation_id), timeout=TIMEOUT_S
    )
    assert ending.state == operation_pb2.OPERATION_STATE_CANCELLED
    assert ending.error.reason == "MIGRATION_CANCELLED"
    found = instance_at(here, slow_guest)
    assert found is not None and found.power_state == types_pb2.POWER_STATE_RUNNING
    assert instance_at(there, slow_guest) is None
    (last,) = progress_of(there, slow_guest, request.migration_id)
    assert last.phase == MigrationPhase.MIGRATION_PHASE_CANCELLED


def test_cancel_of_the_operation_is_an_abort(hosts: tuple[Host, Host], slow_guest: str) -> None:
    here, there = hosts
    request = live_request(slow_guest, there)
    operation = begun(here, request)
    here.connection.operations.CancelOperation(
        operation_pb2.CancelOperationRequest(operation_id=operation.operation_id)
    )
    last = progress_of(here, slow_guest)[-1]
    assert last.phase == MigrationPhase.MIGRATION_PHASE_CANCELLED
    assert last.error.reason == "MIGRATION_CANCELLED"
    assert instance_at(there, slow_guest) is None


def test_timeout_aborts(hosts: tuple[Host, Host], slow_guest: str) -> None:
    here, there = hosts
    options = LiveMigrationOptions()
    options.timeout.FromMilliseconds(200)
    ending = ended(here, live_request(slow_guest, there, options=options))
    assert ending.error.reason == "MIGRATION_TIMEOUT"
    assert ending.error.code == grpc.StatusCode.ABORTED.value[0]
    assert instance_at(there, slow_guest) is None


def test_console_tokens_of_an_instance_that_has_gone_are_refused(hosts: tuple[Host, Host]) -> None:
    here, there = hosts
    spec = small_spec(backend="fake")
    spec.machine.graphics = spec_pb2.GRAPHICS_TYPE_VNC
    with spawned(here.connection, spec) as instance_id:
        ask = console_pb2.GetConsoleRequest(
            instance_id=instance_id, type=console_pb2.CONSOLE_TYPE_VNC
        )
        token = here.connection.consoles.GetConsole(ask, timeout=TIMEOUT_S).token
        assert token
        migrated(here, live_request(instance_id, there))
        migrated(there, live_request(instance_id, here))
        for host in hosts:
            with (
                Tunnelled(
                    host.connection, instance_id, type=console_pb2.CONSOLE_TYPE_VNC, token=token
                ) as tunnel,
                refused(grpc.StatusCode.PERMISSION_DENIED, "CONSOLE_TOKEN_REFUSED"),
            ):
                tunnel.opened()


@pytest.mark.parametrize(
    "verb",
    ["LiveMigrateInstance", "MigrateDiskAndPowerOff", "SnapshotInstance", "RebootInstance"],
)
def test_nothing_else_is_begun_while_it_moves(
    hosts: tuple[Host, Host], slow_guest: str, verb: str
) -> None:
    here, there = hosts
    connection = here.connection
    calls: dict[str, Callable[[], Any]] = {
        "LiveMigrateInstance": lambda: connection.migrations.LiveMigrateInstance(
            live_request(slow_guest, there)
        ),
        "MigrateDiskAndPowerOff": lambda: connection.migrations.MigrateDiskAndPowerOff(
            pb.MigrateDiskAndPowerOffRequest(instance_id=slow_guest, destination_uri=there.uri)
        ),
        "SnapshotInstance": lambda: connection.instances.SnapshotInstance(
            instance_pb2.SnapshotInstanceRequest(instance_id=slow_guest, image_id="snap")
        ),
        "RebootInstance": lambda: connection.instances.RebootInstance(
            instance_pb2.RebootInstanceRequest(instance_id=slow_guest)
        ),
    }
    operation = begun(here, live_request(slow_guest, there))
    with refused(grpc.StatusCode.ABORTED, "INSTANCE_BUSY") as refusal:
        calls[verb]()
    assert refusal.metadata["operation_id"] == operation.operation_id
    assert console_until(connection, slow_guest, b"\n")
    abort = pb.AbortLiveMigrationRequest(instance_id=slow_guest)
    connection.migrations.AbortLiveMigration(abort, timeout=TIMEOUT_S)


def test_destroy_at_the_destination_leaves_one_guest(hosts: tuple[Host, Host], guest: str) -> None:
    """It is not there yet: its source has it, and may still bring it."""
    here, there = hosts
    with ThreadPoolExecutor(1) as beside:
        ending = beside.submit(ended, here, live_request(guest, there))
        destroyed(there.connection, guest)
        succeeded = ending.result().state == operation_pb2.OPERATION_STATE_SUCCEEDED
    found = [instance_at(host, guest) for host in hosts]
    assert [instance is not None for instance in found] in ([False, succeeded], [True, False])


def test_destroy_pre_empts_a_migration(hosts: tuple[Host, Host], slow_guest: str) -> None:
    here, there = hosts
    request = live_request(slow_guest, there)
    begun(here, request)
    destroyed(here.connection, slow_guest)
    assert instance_at(here, slow_guest) is None
    assert instance_at(there, slow_guest) is None


def test_all_blockers_of_both_sides_are_told_at_once(hosts: tuple[Host, Host], guest: str) -> None:
    here, there = hosts
    name = instance_at(here, guest)
    assert name is not None
    with spawned(there.connection, small_spec(backend="fake", name=name.name)):
        options = LiveMigrationOptions(storage=pb.MIGRATION_STORAGE_SHARED)
        ending = ended(here, live_request(guest, there, options=options))
    assert ending.error.reason == "BLOCKED"
    reasons = {blocker.reason for blocker in ending.error.blockers}
    assert reasons == {"NAME_TAKEN", "STORAGE_NOT_SHARED"}
    assert len(ending.steps) == 0


def test_validate_only_changes_nothing(hosts: tuple[Host, Host], guest: str) -> None:
    here, there = hosts
    request = live_request(guest, there)
    request.validate_only = True
    checked = here.connection.migrations.LiveMigrateInstance(request, timeout=TIMEOUT_S)
    assert checked.done
    assert instance_at(here, guest) is not None
    with refused(grpc.StatusCode.NOT_FOUND, "MIGRATION_NOT_FOUND"):
        progress_of(here, guest, request.migration_id)


def test_migration_to_oneself_is_refused(hosts: tuple[Host, Host], guest: str) -> None:
    here, _ = hosts
    ending = ended(here, live_request(guest, here))
    assert ending.error.reason == "SAME_HOST"


def test_unknown_instance_is_not_found(hosts: tuple[Host, Host]) -> None:
    here, there = hosts
    ending = ended(here, live_request(str(uuid.uuid4()), there))
    assert ending.error.reason == "INSTANCE_NOT_FOUND"


def test_peer_that_is_not_there_is_told(hosts: tuple[Host, Host], guest: str) -> None:
    here, there = hosts
    request = live_request(guest, there)
    request.destination_uri = "unix:/nonexistent/virtrpc.sock"
    assert ended(here, request).error.reason == "PEER_UNREACHABLE"


def test_peer_without_tls_beyond_loopback_is_refused(hosts: tuple[Host, Host], guest: str) -> None:
    here, there = hosts
    request = live_request(guest, there)
    request.destination_uri = "grpc://192.0.2.7:50051"
    error = ended(here, request).error
    assert (error.reason, error.metadata["peer_reason"]) == ("PEER_REFUSED", "INSECURE_PEER")


def test_abort_and_force_without_a_migration_are_refused(
    hosts: tuple[Host, Host], guest: str
) -> None:
    here, _ = hosts
    with refused(grpc.StatusCode.FAILED_PRECONDITION, "NO_MIGRATION"):
        here.connection.migrations.AbortLiveMigration(
            pb.AbortLiveMigrationRequest(instance_id=guest), timeout=TIMEOUT_S
        )
    with refused(grpc.StatusCode.FAILED_PRECONDITION, "NO_MIGRATION"):
        here.connection.migrations.ForceCompleteLiveMigration(
            pb.ForceCompleteLiveMigrationRequest(instance_id=guest), timeout=TIMEOUT_S
        )


def test_peer_of_another_contract_is_refused(
    hosts: tuple[Host, Host], guest: str, short_folder: Callable[[], Path]
) -> None:
    here, there = hosts
    other = grpc.server(ThreadPoolExecutor(1))
    request = live_request(guest, there)
    request.destination_uri = f"unix:{short_folder()}/other.sock"
    other.add_insecure_port(request.destination_uri)
    other.start()
    try:
        assert ended(here, request).error.reason == "PEER_MISMATCH"
    finally:
        other.stop(grace=None).wait()
    assert instance_at(here, guest) is not None


def test_port_that_is_taken_is_refused_before_anything_is_made(
    hosts: tuple[Host, Host], guest: str
) -> None:
    here, there = hosts
    request = live_request(guest, there)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        request.migration_uri = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        error = ended(here, request).error
    assert (error.reason, error.metadata["peer_reason"]) == ("PEER_REFUSED", "MIGRATION_PORT_TAKEN")
    assert not (there.daemon.state_dir / "fake" / guest).exists()
    with refused(grpc.StatusCode.NOT_FOUND, "MIGRATION_NOT_FOUND"):
        progress_of(there, guest, request.migration_id)
