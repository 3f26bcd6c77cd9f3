"""Whether the host takes instances in, and of which aggregates it is a member."""

import uuid
from collections.abc import Iterator

import grpc
import pytest
from virtrpc.v1 import event_pb2, host_pb2, instance_pb2, operation_pb2, types_pb2
from virtrpc.v1.host_pb2 import Host, SetHostEnabledRequest

from tests.conformance.conftest import Guest, state_of
from tests.conftest import MakeDaemon
from tests.daemon import Connection
from tests.events_seen import cursor_now, events_after
from tests.instances import TIMEOUT_S, finished, small_spec, spawned
from tests.refusals import refused

WHY = "memory is being replaced"
HOST_CHANGED = event_pb2.EVENT_TYPE_HOST_CHANGED
PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION


def host_of(connection: Connection) -> Host:
    return connection.hosts.GetHost(host_pb2.GetHostRequest(), timeout=TIMEOUT_S).host


def traits(connection: Connection) -> set[str]:
    reply = connection.hosts.GetInventory(host_pb2.GetInventoryRequest(), timeout=TIMEOUT_S)
    return set(reply.providers[0].traits)


def set_enabled(connection: Connection, *, enabled: bool, reason: str = "") -> Host:
    request = SetHostEnabledRequest(enabled=enabled, reason=reason)
    return connection.hosts.SetHostEnabled(request, timeout=TIMEOUT_S).host


@pytest.fixture
def disabled(connection: Connection) -> Iterator[None]:
    """The shared host takes no new instances in, for this test."""
    set_enabled(connection, enabled=False, reason=WHY)
    yield
    set_enabled(connection, enabled=True)


def spawn_request(backend: str) -> instance_pb2.SpawnInstanceRequest:
    return instance_pb2.SpawnInstanceRequest(
        instance_id=str(uuid.uuid4()), spec=small_spec(backend=backend)
    )


class TestEnabled:
    @pytest.mark.usefixtures("disabled")
    def test_disabled_host_says_so(self, connection: Connection) -> None:
        host = host_of(connection)
        assert (host.enabled, host.disabled_reason, host.maintenance) == (False, WHY, False)
        assert "COMPUTE_STATUS_DISABLED" in traits(connection)

    @pytest.mark.usefixtures("disabled")
    def test_disabled_host_refuses_spawns_with_its_reason(
        self, connection: Connection, backend: str
    ) -> None:
        request = spawn_request(backend)
        operation = connection.instances.SpawnInstance(request, timeout=TIMEOUT_S)
        ended = finished(connection, operation)
        assert ended.state == operation_pb2.OPERATION_STATE_FAILED
        assert (ended.error.reason, ended.error.code) == ("HOST_DISABLED", PRECONDITION.value[0])
        assert ended.error.metadata["disabled_reason"] == WHY
        assert list(ended.steps) == []
        request.validate_only = True
        with refused(PRECONDITION, "HOST_DISABLED") as refusal:
            connection.instances.SpawnInstance(request, timeout=TIMEOUT_S)
        assert WHY in refusal.message

    @pytest.mark.usefixtures("disabled")
    def test_disabled_host_names_the_other_blockers_too(
        self, connection: Connection, backend: str
    ) -> None:
        request = spawn_request(backend)
        request.spec.image.image_id = "missing"
        request.validate_only = True
        with refused(PRECONDITION, "BLOCKED") as refusal:
            connection.instances.SpawnInstance(request, timeout=TIMEOUT_S)
        assert refusal.preconditions == ["HOST_DISABLED", "IMAGE_NOT_FOUND"]

    @pytest.mark.usefixtures("disabled")
    def test_instances_that_are_there_go_on(
        self, connection: Connection, running_guest: Guest
    ) -> None:
        there = running_guest.instance_id
        pause = instance_pb2.PauseInstanceRequest(instance_id=there)
        connection.instances.PauseInstance(pause, timeout=TIMEOUT_S)
        unpause = instance_pb2.UnpauseInstanceRequest(instance_id=there)
        connection.instances.UnpauseInstance(unpause, timeout=TIMEOUT_S)
        again = instance_pb2.SpawnInstanceRequest(instance_id=there, spec=running_guest.spec)
        operation = connection.instances.SpawnInstance(again, timeout=TIMEOUT_S)
        assert finished(connection, operation).state == operation_pb2.OPERATION_STATE_SUCCEEDED

    def test_change_is_told_once(self, connection: Connection) -> None:
        before = cursor_now(connection)
        for _ in range(2):
            assert not set_enabled(connection, enabled=False, reason=WHY).enabled
        for _ in range(2):
            assert set_enabled(connection, enabled=True, reason="ignored").disabled_reason == ""
        events = events_after(connection, before, until=lambda e: e.detail == "enabled")
        told = [event.detail for event in events if event.type == HOST_CHANGED]
        assert told == ["disabled", "enabled"]

    def test_validate_only_changes_nothing(self, connection: Connection) -> None:
        request = SetHostEnabledRequest(enabled=False, reason=WHY, validate_only=True)
        assert not connection.hosts.SetHostEnabled(request, timeout=TIMEOUT_S).HasField("host")
        assert host_of(connection).enabled

    def test_reason_without_control_characters(self, connection: Connection) -> None:
        with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST") as refusal:
            set_enabled(connection, enabled=False, reason="a\nb")
        assert refusal.fields == ["reason"]


def maintenance(
    connection: Connection, *, on: bool, to: str = ""
) -> host_pb2.SetMaintenanceModeResponse:
    request = host_pb2.SetMaintenanceModeRequest(
        maintenance=on, reason=WHY, destination_uris=[to] if to else []
    )
    operation = connection.hosts.SetMaintenanceMode(request, timeout=TIMEOUT_S)
    ended = finished(connection, operation)
    assert ended.state == operation_pb2.OPERATION_STATE_SUCCEEDED, ended.error
    result = host_pb2.SetMaintenanceModeResponse()
    assert ended.result.Unpack(result)
    return result


class TestMaintenance:
    @pytest.fixture(autouse=True)
    def over(self, connection: Connection) -> Iterator[None]:
        yield
        maintenance(connection, on=False)
        set_enabled(connection, enabled=True)

    def test_host_is_closed_and_opened_again(self, connection: Connection) -> None:
        for _ in range(2):
            host = maintenance(connection, on=True).host
            assert (host.maintenance, host.enabled, host.disabled_reason) == (True, False, WHY)
        with refused(PRECONDITION, "HOST_IN_MAINTENANCE"):
            set_enabled(connection, enabled=True)
        for _ in range(2):
            over = maintenance(connection, on=False)
            assert (over.host.maintenance, over.host.enabled) == (False, True)
            assert (over.evacuated, list(over.instances)) == (False, [])

    def test_host_that_was_disabled_before_stays_so(self, connection: Connection) -> None:
        set_enabled(connection, enabled=False, reason="before")
        maintenance(connection, on=True)
        host = maintenance(connection, on=False).host
        assert (host.enabled, host.disabled_reason) == (False, "before")

    @pytest.mark.parametrize("to", ["", "unix:/nonexistent/virtrpc.sock"])
    def test_every_instance_has_its_outcome(
        self, connection: Connection, running_guest: Guest, backend: str, to: str
    ) -> None:
        with spawned(connection, small_spec(backend=backend)) as instance_id:
            off = instance_pb2.PowerOffInstanceRequest(instance_id=instance_id)
            off.timeout.FromSeconds(0)
            connection.instances.PowerOffInstance(off, timeout=TIMEOUT_S)
            result = maintenance(connection, on=True, to=to)
        assert not result.evacuated
        outcomes = {found.instance_id: found for found in result.instances}
        assert list(outcomes) == sorted(outcomes)
        assert outcomes[instance_id].outcome == host_pb2.MAINTENANCE_OUTCOME_STAYS
        assert not outcomes[instance_id].HasField("error")
        left = outcomes[running_guest.instance_id]
        assert left.outcome == host_pb2.MAINTENANCE_OUTCOME_FAILED
        assert left.name == "shared-guest"
        assert left.error.reason
        assert to or (left.error.reason, left.operation_id) == ("NO_DESTINATION", "")
        still = state_of(connection, running_guest.instance_id)
        assert still.power_state == types_pb2.POWER_STATE_RUNNING

    def test_check_names_the_instances_that_cannot_leave(
        self, connection: Connection, running_guest: Guest
    ) -> None:
        request = host_pb2.SetMaintenanceModeRequest(maintenance=True, validate_only=True)
        with refused(PRECONDITION, "NO_DESTINATION") as refusal:
            connection.hosts.SetMaintenanceMode(request, timeout=TIMEOUT_S)
        assert refusal.metadata["instance_id"] == running_guest.instance_id
        assert host_of(connection).enabled

    def test_bad_destination_is_refused_at_its_field(self, connection: Connection) -> None:
        request = host_pb2.SetMaintenanceModeRequest(destination_uris=["http://x"], max_parallel=17)
        with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST") as refusal:
            connection.hosts.SetMaintenanceMode(request, timeout=TIMEOUT_S)
        assert set(refusal.fields) == {"destination_uris[0]", "max_parallel"}


class TestAggregates:
    @pytest.fixture
    def aggregate_id(self, connection: Connection) -> Iterator[str]:
        """Of an aggregate that the shared host is no member of after the test."""
        made = str(uuid.uuid4())
        yield made
        self.remove(connection, made)

    def add(self, connection: Connection, aggregate_id: str, **facts: object) -> list[str]:
        request = host_pb2.AddToAggregateRequest(aggregate_id=aggregate_id, **facts)  # type: ignore[arg-type]
        reply = connection.hosts.AddToAggregate(request, timeout=TIMEOUT_S)
        return [aggregate.aggregate_id for aggregate in reply.aggregates]

    def remove(self, connection: Connection, aggregate_id: str) -> list[str]:
        request = host_pb2.RemoveFromAggregateRequest(aggregate_id=aggregate_id)
        reply = connection.hosts.RemoveFromAggregate(request, timeout=TIMEOUT_S)
        return [aggregate.aggregate_id for aggregate in reply.aggregates]

    def undo(
        self,
        connection: Connection,
        aggregate_id: str,
        what: "host_pb2.AggregateOperation.ValueType",
    ) -> list[str]:
        request = host_pb2.UndoAggregateOperationRequest(aggregate_id=aggregate_id, operation=what)
        reply = connection.hosts.UndoAggregateOperation(request, timeout=TIMEOUT_S)
        return [aggregate.aggregate_id for aggregate in reply.aggregates]

    def test_membership_is_reported_until_it_ends(
        self, connection: Connection, aggregate_id: str
    ) -> None:
        assert self.add(connection, aggregate_id, name="a") == [aggregate_id]
        (first,) = host_of(connection).aggregates
        again = self.add(connection, aggregate_id.upper(), name="b", metadata={"zone": "z1"})
        assert again == [aggregate_id]
        (found,) = host_of(connection).aggregates
        assert (found.name, dict(found.metadata)) == ("b", {"zone": "z1"})
        assert found.added_at == first.added_at
        inventory = connection.hosts.GetInventory(host_pb2.GetInventoryRequest())
        assert list(inventory.providers[0].aggregate_ids) == [aggregate_id]
        for _ in range(2):
            assert self.remove(connection, aggregate_id) == []
        assert list(host_of(connection).aggregates) == []

    def test_addition_and_removal_are_taken_back(
        self, connection: Connection, aggregate_id: str
    ) -> None:
        self.add(connection, aggregate_id, name="kept", metadata={"k": "v"})
        self.remove(connection, aggregate_id)
        for _ in range(2):
            back = self.undo(connection, aggregate_id, host_pb2.AGGREGATE_OPERATION_REMOVE)
            assert back == [aggregate_id]
        (found,) = host_of(connection).aggregates
        assert (found.name, dict(found.metadata)) == ("kept", {"k": "v"})
        for _ in range(2):
            assert self.undo(connection, aggregate_id, host_pb2.AGGREGATE_OPERATION_ADD) == []

    def test_removal_that_never_was_cannot_be_undone(
        self, connection: Connection, aggregate_id: str
    ) -> None:
        self.add(connection, aggregate_id)
        self.undo(connection, aggregate_id, host_pb2.AGGREGATE_OPERATION_ADD)
        with refused(grpc.StatusCode.NOT_FOUND, "AGGREGATE_NOT_FOUND") as refusal:
            self.undo(connection, aggregate_id, host_pb2.AGGREGATE_OPERATION_REMOVE)
        assert refusal.metadata["aggregate_id"] == aggregate_id

    def test_validate_only_changes_nothing(self, connection: Connection, aggregate_id: str) -> None:
        request = host_pb2.AddToAggregateRequest(aggregate_id=aggregate_id, validate_only=True)
        connection.hosts.AddToAggregate(request, timeout=TIMEOUT_S)
        assert list(host_of(connection).aggregates) == []

    def test_bad_input_is_refused_at_its_field(self, connection: Connection) -> None:
        with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST") as refusal:
            self.add(connection, "x", name="\n")
        assert set(refusal.fields) == {"aggregate_id", "name"}
        with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST") as refusal:
            self.undo(connection, str(uuid.uuid4()), host_pb2.AGGREGATE_OPERATION_UNSPECIFIED)
        assert refusal.fields == ["operation"]


def test_what_the_service_knows_of_its_host_outlives_it(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon().start()
    kept, removed = str(uuid.uuid4()), str(uuid.uuid4())
    with daemon.connect() as connection:
        for aggregate_id in (kept, removed):
            request = host_pb2.AddToAggregateRequest(aggregate_id=aggregate_id, name="n")
            connection.hosts.AddToAggregate(request)
        gone = host_pb2.RemoveFromAggregateRequest(aggregate_id=removed)
        connection.hosts.RemoveFromAggregate(gone)
        set_enabled(connection, enabled=False, reason=WHY)
        maintenance(connection, on=True)
    daemon.kill()
    with daemon.start().connect() as connection:
        host = host_of(connection)
        assert (host.enabled, host.maintenance) == (False, True)
        assert [found.aggregate_id for found in host.aggregates] == [kept]
        maintenance(connection, on=False)
        assert host_of(connection).disabled_reason == WHY
        undo = host_pb2.UndoAggregateOperationRequest(
            aggregate_id=removed, operation=host_pb2.AGGREGATE_OPERATION_REMOVE
        )
        back = connection.hosts.UndoAggregateOperation(undo).aggregates
        assert {found.aggregate_id for found in back} == {kept, removed}
