"""Memory to disk and back."""

import re

import grpc
import pytest
from virtrpc.v1 import instance_pb2 as pb
from virtrpc.v1 import types_pb2

from tests.daemon import Connection
from tests.instances import console_until, small_spec, spawned, succeeded
from tests.refusals import refused

COUNT = re.compile(rb"count (\d+)")


def test_a_suspended_instance_comes_back(connection: Connection, backend: str) -> None:
    with spawned(connection, small_spec(backend=backend)) as instance_id:
        suspend = pb.SuspendInstanceRequest(instance_id=instance_id)
        for _ in range(2):
            suspended = succeeded(connection, connection.instances.SuspendInstance(suspend))
            assert suspended.power_state == types_pb2.POWER_STATE_SUSPENDED
        with refused(grpc.StatusCode.FAILED_PRECONDITION, "WRONG_STATE"):
            connection.instances.PauseInstance(pb.PauseInstanceRequest(instance_id=instance_id))
        resume = pb.ResumeInstanceRequest(instance_id=instance_id)
        for _ in range(2):
            resumed = succeeded(connection, connection.instances.ResumeInstance(resume))
            assert resumed.power_state == types_pb2.POWER_STATE_RUNNING


def test_power_off_discards_what_was_saved(connection: Connection, backend: str) -> None:
    with spawned(connection, small_spec(backend=backend)) as instance_id:
        suspend = pb.SuspendInstanceRequest(instance_id=instance_id)
        succeeded(connection, connection.instances.SuspendInstance(suspend))
        off = pb.PowerOffInstanceRequest(instance_id=instance_id)
        state = connection.instances.PowerOffInstance(off).instance.power_state
        assert state == types_pb2.POWER_STATE_SHUTDOWN


@pytest.mark.parametrize("backend", ["libvirt"], indirect=True)
class TestOnRealQemu:
    """What only a guest that lives can show."""

    def test_a_resumed_guest_counts_on_where_it_was(
        self, connection: Connection, backend: str
    ) -> None:
        spec = small_spec(backend=backend)
        spec.image.kernel_args += " virtrpc.counter=1"
        with spawned(connection, spec) as instance_id:
            before = console_until(connection, instance_id, b"count 5\r\n")
            suspend = pb.SuspendInstanceRequest(instance_id=instance_id)
            succeeded(connection, connection.instances.SuspendInstance(suspend))
            resume = pb.ResumeInstanceRequest(instance_id=instance_id)
            succeeded(connection, connection.instances.ResumeInstance(resume))
            log = console_until(connection, instance_id, b"count 25\r\n")
            assert log.startswith(before)
            counts = [int(match) for match in COUNT.findall(log)]
            assert counts == list(range(counts[0], counts[0] + len(counts)))
            assert log.count(b"virtrpc guest ready") == 1
