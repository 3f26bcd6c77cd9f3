"""SpawnInstance: from a specification to a running guest, once."""

import uuid

import grpc
import pytest
from virtrpc.v1 import instance_pb2 as pb
from virtrpc.v1 import operation_pb2, types_pb2
from virtrpc.v1.instance_pb2 import Instance

from tests.conformance.conftest import Guest, state_of
from tests.daemon import Connection
from tests.instances import (
    TIMEOUT_S,
    console_until,
    destroyed,
    finished,
    small_spec,
    spawned,
    succeeded,
)
from tests.refusals import refused

SUCCEEDED = operation_pb2.OPERATION_STATE_SUCCEEDED


def spawn(connection: Connection, request: pb.SpawnInstanceRequest) -> operation_pb2.Operation:
    return connection.instances.SpawnInstance(request, timeout=TIMEOUT_S)


def operations_of(connection: Connection, instance_id: str) -> list[operation_pb2.Operation]:
    request = operation_pb2.ListOperationsRequest(instance_id=instance_id)
    reply = connection.operations.ListOperations(request, timeout=TIMEOUT_S)
    return list(reply.operations)


def test_spawned_instance_runs_and_its_operation_tells_how_it_was_made(
    connection: Connection, backend: str
) -> None:
    request = pb.SpawnInstanceRequest(
        instance_id=str(uuid.uuid4()), spec=small_spec(backend=backend), request_id="first"
    )
    try:
        accepted = spawn(connection, request)
        assert (accepted.verb, accepted.instance_id) == ("SpawnInstance", request.instance_id)
        assert accepted.request_id == "first"
        ended = finished(connection, accepted)
        assert (ended.operation_id, ended.state) == (accepted.operation_id, SUCCEEDED)
        assert ended.progress_percent == 100
        assert [step.name for step in ended.steps] == ["files", "define", "start"]
        assert all(step.HasField("started_at") for step in ended.steps)
        assert (
            ended.created_at.ToNanoseconds()
            <= ended.started_at.ToNanoseconds()
            <= ended.ended_at.ToNanoseconds()
        )
        assert not ended.HasField("error")
        result = Instance()
        assert ended.result.Unpack(result)
        assert result.instance_id == request.instance_id
        assert result.power_state == types_pb2.POWER_STATE_RUNNING
        fresh = state_of(connection, request.instance_id)
        assert fresh.power_state == types_pb2.POWER_STATE_RUNNING
        assert fresh.HasField("started_at")
    finally:
        destroyed(connection, request.instance_id)


def test_watcher_sees_the_phases_in_order(connection: Connection, backend: str) -> None:
    instance_id = str(uuid.uuid4())
    # A delay of the fake, so that its phases can be seen; nothing more than a label elsewhere.
    spec = small_spec(backend=backend, boot="disk")
    for step in ("files", "define", "start"):
        spec.labels[f"fake/spawn_instance.{step}"] = "delay:0.1"
    accepted = spawn(connection, pb.SpawnInstanceRequest(instance_id=instance_id, spec=spec))
    try:
        watch = operation_pb2.WatchOperationRequest(operation_id=accepted.operation_id)
        seen = [
            response.operation
            for response in connection.operations.WatchOperation(watch, timeout=TIMEOUT_S)
        ]
        phases = list(dict.fromkeys(operation.phase for operation in seen if operation.phase))
        order = ["image", "disks", "network", "define", "start"]
        assert phases == [phase for phase in order if phase in phases]
        assert "start" in phases
        shares = [operation.progress_percent for operation in seen]
        assert shares == sorted(shares)
        assert [operation.done for operation in seen[:-1]] == [False] * (len(seen) - 1)
        assert seen[-1].done
        assert seen[-1].state == SUCCEEDED
    finally:
        destroyed(connection, instance_id)


def test_guest_prints_on_its_console(connection: Connection, guest: Guest) -> None:
    assert b"virtrpc guest ready" in console_until(
        connection, guest.instance_id, b"virtrpc guest ready"
    )


def test_instance_has_what_its_specification_says(connection: Connection, guest: Guest) -> None:
    instance = state_of(connection, guest.instance_id)
    assert instance.name == guest.spec.name
    assert instance.vcpus == guest.spec.flavor.vcpus
    assert instance.max_memory_kib == guest.spec.flavor.memory_mib * 1024
    assert instance.memory_kib <= instance.max_memory_kib
    assert instance.labels == guest.spec.labels
    assert instance.metadata == guest.spec.metadata
    assert instance.spec == guest.spec
    assert instance.managed
    assert instance.bootable
    (interface,) = instance.effective.interfaces
    assert interface.port_id == guest.spec.interfaces[0].port_id
    assert (interface.type, interface.model) == ("user", "virtio")
    assert interface.mac_address


def test_instance_without_a_name_is_named_after_its_id(
    connection: Connection, backend: str
) -> None:
    spec = small_spec(backend=backend)
    spec.ClearField("name")
    with spawned(connection, spec) as instance_id:
        assert instance_id in state_of(connection, instance_id).name


def test_guest_boots_from_a_disk_image(connection: Connection, backend: str) -> None:
    with spawned(connection, small_spec(backend=backend, boot="disk")) as instance_id:
        console_until(connection, instance_id, b"virtrpc guest ready")
        (disk,) = state_of(connection, instance_id).effective.disks
        assert disk.role == "root"


def test_upper_case_id_is_the_same_instance(connection: Connection, backend: str) -> None:
    instance_id = str(uuid.uuid4())
    spec = small_spec(backend=backend)
    request = pb.SpawnInstanceRequest(instance_id=instance_id.upper(), spec=spec)
    try:
        instance = succeeded(connection, spawn(connection, request))
        assert instance.instance_id == instance_id
        by_upper = pb.GetInstanceRequest(instance_id=instance_id.upper())
        read = connection.instances.GetInstance(by_upper, timeout=TIMEOUT_S).instance
        assert read.instance_id == instance_id
    finally:
        destroyed(connection, instance_id.upper())
    with refused(grpc.StatusCode.NOT_FOUND, "INSTANCE_NOT_FOUND"):
        state_of(connection, instance_id)


class TestRepeats:
    """Idempotent by identity, and by request_id."""

    def test_same_request_id_gives_the_same_operation(
        self, connection: Connection, backend: str
    ) -> None:
        request = pb.SpawnInstanceRequest(
            instance_id=str(uuid.uuid4()), spec=small_spec(backend=backend), request_id="again"
        )
        try:
            first = spawn(connection, request)
            second = spawn(connection, request)
            succeeded(connection, first)
            third = spawn(connection, request)
            assert first.operation_id == second.operation_id == third.operation_id
            assert third.done
            assert len(operations_of(connection, request.instance_id)) == 1
        finally:
            destroyed(connection, request.instance_id)

    def test_same_specification_is_a_success_that_changes_nothing(
        self, connection: Connection, guest: Guest
    ) -> None:
        before = state_of(connection, guest.instance_id)
        request = pb.SpawnInstanceRequest(instance_id=guest.instance_id, spec=guest.spec)
        instance = succeeded(connection, spawn(connection, request))
        assert instance.instance_id == guest.instance_id
        after = state_of(connection, guest.instance_id)
        assert after.started_at == before.started_at
        assert after.created_at == before.created_at

    def test_same_specification_leaves_an_instance_that_is_paused_so(
        self, connection: Connection, running_guest: Guest
    ) -> None:
        pause = pb.PauseInstanceRequest(instance_id=running_guest.instance_id)
        connection.instances.PauseInstance(pause, timeout=TIMEOUT_S)
        request = pb.SpawnInstanceRequest(
            instance_id=running_guest.instance_id, spec=running_guest.spec
        )
        instance = succeeded(connection, spawn(connection, request))
        assert instance.power_state == types_pb2.POWER_STATE_PAUSED

    @pytest.mark.parametrize("validate_only", [False, True])
    def test_another_specification_is_refused(
        self, connection: Connection, guest: Guest, validate_only: bool
    ) -> None:
        request = pb.SpawnInstanceRequest(
            instance_id=guest.instance_id, spec=guest.spec, validate_only=validate_only
        )
        request.spec.flavor.vcpus += 1
        assert_spawn_refused(connection, request, 6, "SPEC_DIFFERS")

    @pytest.mark.parametrize("validate_only", [False, True])
    def test_taken_name_is_refused(
        self, connection: Connection, guest: Guest, validate_only: bool
    ) -> None:
        request = pb.SpawnInstanceRequest(
            instance_id=str(uuid.uuid4()), spec=guest.spec, validate_only=validate_only
        )
        assert_spawn_refused(connection, request, 6, "NAME_TAKEN", field="spec.name")

    def test_request_id_of_another_request_is_refused(
        self, connection: Connection, guest: Guest
    ) -> None:
        request = pb.SpawnInstanceRequest(
            instance_id=guest.instance_id, spec=guest.spec, request_id="used"
        )
        succeeded(connection, spawn(connection, request))
        request.spec.flavor.vcpus += 1
        with refused(grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_ID_REUSED") as refusal:
            spawn(connection, request)
        assert refusal.fields == ["request_id"]


def test_validate_only_makes_nothing_and_no_operation(connection: Connection, backend: str) -> None:
    instance_id = str(uuid.uuid4())
    request = pb.SpawnInstanceRequest(
        instance_id=instance_id, spec=small_spec(backend=backend), validate_only=True
    )
    answer = spawn(connection, request)
    assert (answer.state, answer.done, answer.operation_id) == (SUCCEEDED, True, "")
    assert operations_of(connection, instance_id) == []
    with refused(grpc.StatusCode.NOT_FOUND, "INSTANCE_NOT_FOUND"):
        state_of(connection, instance_id)


def test_validate_only_finds_all_blockers_at_once(connection: Connection, backend: str) -> None:
    spec = small_spec(backend=backend)
    spec.image.image_id = "missing-disk"
    spec.image.kernel_image_id = "missing-kernel"
    spec.image.ramdisk_image_id = "missing-ramdisk"
    request = pb.SpawnInstanceRequest(instance_id=str(uuid.uuid4()), spec=spec, validate_only=True)
    with refused(grpc.StatusCode.NOT_FOUND) as refusal:
        spawn(connection, request)
    assert refusal.field_reasons == {
        "spec.image.image_id": "IMAGE_NOT_FOUND",
        "spec.image.kernel_image_id": "IMAGE_NOT_FOUND",
        "spec.image.ramdisk_image_id": "IMAGE_NOT_FOUND",
    }


def assert_spawn_refused(
    connection: Connection,
    request: pb.SpawnInstanceRequest,
    code: int,
    reason: str,
    *,
    field: str = "",
) -> None:
    """The spawn is refused: at once with validate_only, else by its operation."""
    if request.validate_only:
        with refused(status_code(code), reason) as refusal:
            spawn(connection, request)
        assert refusal.fields == ([field] if field else [])
        return
    ended = finished(connection, spawn(connection, request))
    assert ended.state == operation_pb2.OPERATION_STATE_FAILED
    assert (ended.error.code, ended.error.reason) == (code, reason)
    assert [blocker.field for blocker in ended.error.blockers] == ([field] if field else [])
    assert list(ended.steps) == []


def status_code(number: int) -> grpc.StatusCode:
    return next(code for code in grpc.StatusCode if code.value[0] == number)
