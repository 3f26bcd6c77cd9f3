"""Running, paused, off, and back: what each verb does, again, and where it is not possible."""

from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from virtrpc.v1 import instance_pb2 as pb
from virtrpc.v1 import operation_pb2, types_pb2

from tests.conformance.conftest import Guest, boot_anew, console_end, state_of
from tests.daemon import Connection
from tests.instances import TIMEOUT_S, console_until

RUNNING = types_pb2.POWER_STATE_RUNNING
PAUSED = types_pb2.POWER_STATE_PAUSED
SHUTDOWN = types_pb2.POWER_STATE_SHUTDOWN
AT_ONCE = Duration(seconds=0)
READY = b"virtrpc guest ready"
VERBS: dict[str, dict[str, Any]] = {
    "PauseInstance": {},
    "UnpauseInstance": {},
    "PowerOffInstance": {"timeout": AT_ONCE},
    "PowerOnInstance": {},
    "RebootInstance": {"type": pb.REBOOT_TYPE_HARD},
}


def call(connection: Connection, verb: str, instance_id: str, **fields: Any) -> Any:
    request = getattr(pb, f"{verb}Request")(instance_id=instance_id, **{**VERBS[verb], **fields})
    return getattr(connection.instances, verb)(request, timeout=TIMEOUT_S)


def test_pause_stops_the_guest_and_unpause_lets_it_run_on(
    connection: Connection, running_guest: Guest
) -> None:
    instance_id = running_guest.instance_id
    started_at = state_of(connection, instance_id).started_at
    for _ in range(2):
        assert call(connection, "PauseInstance", instance_id).instance.power_state == PAUSED
        assert state_of(connection, instance_id).power_state == PAUSED
    for _ in range(2):
        assert call(connection, "UnpauseInstance", instance_id).instance.power_state == RUNNING
        assert state_of(connection, instance_id).power_state == RUNNING
    assert state_of(connection, instance_id).started_at == started_at


def test_forced_power_off_and_power_on(connection: Connection, running_guest: Guest) -> None:
    instance_id = running_guest.instance_id
    off = call(connection, "PowerOffInstance", instance_id)
    assert (off.forced, off.instance.power_state) == (True, SHUTDOWN)
    assert not off.instance.HasField("started_at")
    assert not off.instance.HasField("effective")
    assert off.instance.HasField("persistent")
    again = call(connection, "PowerOffInstance", instance_id)
    assert (again.forced, again.instance.power_state) == (False, SHUTDOWN)
    end = console_end(connection, instance_id)
    for _ in range(2):
        on = call(connection, "PowerOnInstance", instance_id).instance
        assert on.power_state == RUNNING
        assert on.HasField("started_at")
    console_until(connection, instance_id, READY, offset=end)


def test_power_off_of_a_guest_that_listens_is_not_forced(
    connection: Connection, running_guest: Guest
) -> None:
    instance_id = running_guest.instance_id
    boot_anew(connection, instance_id)
    off = call(connection, "PowerOffInstance", instance_id, timeout=Duration(seconds=50))
    assert (off.forced, off.instance.power_state) == (False, SHUTDOWN)


def test_power_off_of_a_paused_guest(connection: Connection, running_guest: Guest) -> None:
    call(connection, "PauseInstance", running_guest.instance_id)
    off = call(
        connection, "PowerOffInstance", running_guest.instance_id, timeout=Duration(seconds=30)
    )
    assert off.instance.power_state == SHUTDOWN


@pytest.mark.parametrize("kind", [pb.REBOOT_TYPE_HARD, pb.REBOOT_TYPE_UNSPECIFIED])
@pytest.mark.parametrize("before", [None, "PauseInstance", "PowerOffInstance"])
def test_hard_reboot_makes_it_run_whatever_it_was(
    connection: Connection, running_guest: Guest, kind: int, before: str | None
) -> None:
    instance_id = running_guest.instance_id
    if before is not None:
        call(connection, before, instance_id)
    reply = call(connection, "RebootInstance", instance_id, type=kind)
    assert reply.instance.power_state == RUNNING
    assert not reply.forced
    assert list(reply.bad_volume_ids) == []
    assert state_of(connection, instance_id).power_state == RUNNING


def test_soft_reboot_is_the_guest_s_own(connection: Connection, running_guest: Guest) -> None:
    instance_id = running_guest.instance_id
    boot_anew(connection, instance_id)
    end = console_end(connection, instance_id)
    reply = call(
        connection, "RebootInstance", instance_id,
        type=pb.REBOOT_TYPE_SOFT, timeout=Duration(seconds=50),
    )  # fmt: skip
    assert (reply.forced, reply.instance.power_state) == (False, RUNNING)
    console_until(connection, instance_id, READY, offset=end)


def test_repeat_of_a_reboot_by_its_request_id_reboots_once(
    connection: Connection, running_guest: Guest
) -> None:
    instance_id = running_guest.instance_id
    first = call(connection, "RebootInstance", instance_id, request_id="once")
    started_at = state_of(connection, instance_id).started_at
    second = call(connection, "RebootInstance", instance_id, request_id="once")
    assert second == first
    assert state_of(connection, instance_id).started_at == started_at
    request = operation_pb2.ListOperationsRequest(instance_id=instance_id, verb="RebootInstance")
    listed = connection.operations.ListOperations(request, timeout=TIMEOUT_S).operations
    assert [operation.request_id for operation in listed].count("once") == 1
