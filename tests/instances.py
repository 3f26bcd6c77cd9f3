"""Instances that tests spawn, and take away again."""

import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import grpc
from virtrpc.v1 import console_pb2, instance_pb2, operation_pb2
from virtrpc.v1.instance_pb2 import Instance
from virtrpc.v1.operation_pb2 import Operation
from virtrpc.v1.spec_pb2 import ImageSource, InstanceSpec, InterfaceSpec, UserModeNetwork

from tests.daemon import Connection
from tests.images import guest_cmdline

MEMORY_MIB = 96
TIMEOUT_S = 60.0
_NO_AGENT_YET = (grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.DEADLINE_EXCEEDED)


def small_spec(*, backend: str, name: str = "", boot: str = "kernel") -> InstanceSpec:
    """A small guest that boots a kernel directly, or from the disk image `guest`."""
    spec = InstanceSpec(name=name or f"test-{uuid.uuid4().hex[:8]}")
    spec.flavor.vcpus, spec.flavor.memory_mib = 1, MEMORY_MIB
    if boot == "kernel":
        arguments = guest_cmdline() if backend == "libvirt" else ""
        spec.image.CopyFrom(
            ImageSource(kernel_image_id="kernel", ramdisk_image_id="ramdisk", kernel_args=arguments)
        )
    else:
        spec.image.image_id = "guest"
    return spec


def with_interface(spec: InstanceSpec) -> InstanceSpec:
    """The same with a user-mode interface."""
    interface = InterfaceSpec(port_id=str(uuid.uuid4()), user=UserModeNetwork())
    spec.interfaces.append(interface)
    return spec


def finished(connection: Connection, operation: Operation) -> Operation:
    """The operation when it has ended."""
    request = operation_pb2.WaitOperationRequest(operation_id=operation.operation_id)
    request.timeout.FromSeconds(int(TIMEOUT_S))
    ended = connection.operations.WaitOperation(request, timeout=TIMEOUT_S)
    assert ended.done, ended
    return ended


def in_phase(connection: Connection, operation: Operation, phase: str) -> None:
    """Returns when an operation has come to a phase."""
    request = operation_pb2.WatchOperationRequest(operation_id=operation.operation_id)
    watched = connection.operations.WatchOperation(request, timeout=TIMEOUT_S)
    for response in watched:
        assert not response.operation.done, response
        if response.operation.phase == phase:
            break
    watched.cancel()


def succeeded(connection: Connection, operation: Operation) -> Instance:
    """The instance that a long-running verb gave."""
    ended = finished(connection, operation)
    assert ended.state == operation_pb2.OPERATION_STATE_SUCCEEDED, ended.error
    instance = Instance()
    ended.result.Unpack(instance)
    return instance


@contextmanager
def spawned(connection: Connection, spec: InstanceSpec) -> Iterator[str]:
    """The id of an instance that runs inside, and is gone after."""
    instance_id = str(uuid.uuid4())
    request = instance_pb2.SpawnInstanceRequest(instance_id=instance_id, spec=spec)
    try:
        succeeded(connection, connection.instances.SpawnInstance(request, timeout=TIMEOUT_S))
        yield instance_id
    finally:
        destroyed(connection, instance_id)


def destroyed(connection: Connection, instance_id: str) -> None:
    """Takes an instance away with all it has; nothing where it is gone."""
    request = instance_pb2.DestroyInstanceRequest(
        instance_id=instance_id, destroy_disks=True, destroy_secrets=True
    )
    connection.instances.DestroyInstance(request, timeout=TIMEOUT_S)


def agent_answers(connection: Connection, instance_id: str) -> None:
    """Returns when the agent of a guest that boots, or has booted, answers."""
    console_until(connection, instance_id, b"virtrpc guest ready")
    request = instance_pb2.UnquiesceInstanceRequest(instance_id=instance_id, validate_only=True)
    end = time.monotonic() + TIMEOUT_S
    while True:
        try:
            connection.instances.UnquiesceInstance(request)
        except grpc.RpcError as error:
            if time.monotonic() > end or error.code() not in _NO_AGENT_YET:
                raise
        else:
            return


def console_until(
    connection: Connection,
    instance_id: str,
    text: bytes,
    *,
    offset: int = 0,
    timeout_s: float = TIMEOUT_S,
) -> bytes:
    """What the console printed from an offset on, until a text was in it."""
    request = console_pb2.StreamConsoleOutputRequest(
        instance_id=instance_id, offset=offset, follow=True
    )
    stream = connection.consoles.StreamConsoleOutput(request, timeout=timeout_s)
    seen = b""
    try:
        for response in stream:
            seen += response.data.data
            if text in seen:
                return seen
    finally:
        stream.cancel()
    raise AssertionError(f"{text!r} is not in {seen[-500:]!r}")
