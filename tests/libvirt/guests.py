"""What the tests of the libvirt backend ask a daemon for, beside tests.instances."""

import uuid

from virtrpc.v1 import instance_pb2
from virtrpc.v1.instance_pb2 import Instance
from virtrpc.v1.operation_pb2 import Operation
from virtrpc.v1.spec_pb2 import InstanceSpec

from tests.daemon import Connection
from tests.instances import TIMEOUT_S, finished


def begin_to_spawn(connection: Connection, spec: InstanceSpec) -> Operation:
    """The operation of a spawn that was begun."""
    request = instance_pb2.SpawnInstanceRequest(instance_id=str(uuid.uuid4()), spec=spec)
    return connection.instances.SpawnInstance(request, timeout=TIMEOUT_S)


def try_to_spawn(connection: Connection, spec: InstanceSpec) -> Operation:
    """The operation of a spawn when it has ended, well or not."""
    return finished(connection, begin_to_spawn(connection, spec))


def instance_of(connection: Connection, instance_id: str) -> Instance:
    """An instance as the daemon knows it."""
    request = instance_pb2.GetInstanceRequest(instance_id=instance_id)
    return connection.instances.GetInstance(request, timeout=TIMEOUT_S).instance


def pause(connection: Connection, instance_id: str) -> None:
    """Pauses an instance."""
    request = instance_pb2.PauseInstanceRequest(instance_id=instance_id)
    connection.instances.PauseInstance(request, timeout=TIMEOUT_S)


def unpause(connection: Connection, instance_id: str) -> None:
    """Lets it run on."""
    request = instance_pb2.UnpauseInstanceRequest(instance_id=instance_id)
    connection.instances.UnpauseInstance(request, timeout=TIMEOUT_S)


def power_off(connection: Connection, instance_id: str) -> None:
    """Switches it off at once."""
    request = instance_pb2.PowerOffInstanceRequest(instance_id=instance_id)
    request.timeout.FromSeconds(0)
    connection.instances.PowerOffInstance(request, timeout=TIMEOUT_S)


def power_on(connection: Connection, instance_id: str) -> None:
    """Starts it."""
    request = instance_pb2.PowerOnInstanceRequest(instance_id=instance_id)
    connection.instances.PowerOnInstance(request, timeout=TIMEOUT_S)
