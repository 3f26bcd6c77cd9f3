"""What an operation came to: its typed result, or the error that it ended with."""

from __future__ import annotations

import time
from importlib import import_module
from pkgutil import iter_modules

import grpc
from google.protobuf import message_factory
from google.protobuf.any_pb2 import Any as PackedMessage
from google.protobuf.descriptor import Descriptor
from google.protobuf.descriptor_pool import Default
from google.protobuf.message import Message

import virtrpc.v1
from virtrpc.errors import OperationError, RpcError, made
from virtrpc.resume import Backoff, Retries
from virtrpc.v1.operation_pb2 import Operation, OperationState, WaitOperationRequest
from virtrpc.v1.types_pb2 import Error

# One WaitOperation at a time waits this long; its call is given up a little later.
SLICE_S = 60.0
GRACE_S = 15.0


def result_of(operation: Operation) -> Message | None:
    """What an ended operation returned, typed; None where it returned nothing.

    Raises OperationError when it FAILED or was CANCELLED, ValueError when it has
    not ended.
    """
    if not operation.done:
        raise ValueError(f"operation {operation.operation_id} has not ended")
    if operation.state != OperationState.OPERATION_STATE_SUCCEEDED:
        raise OperationError(operation)
    return unpacked(operation.result) if operation.HasField("result") else None


def unpacked(packed: PackedMessage) -> Message:
    """The message in an Any, of the class that its type URL names.

    Raises KeyError for a type that these stubs do not have.
    """
    message = message_factory.GetMessageClass(_descriptor(packed.TypeName()))()
    packed.Unpack(message)
    return message


def _descriptor(name: str) -> Descriptor:
    try:
        return Default().FindMessageTypeByName(name)
    except KeyError:
        # Not imported yet: a message is only known once its module is.
        for module in iter_modules(virtrpc.v1.__path__):
            if module.name.endswith("_pb2"):
                import_module(f"virtrpc.v1.{module.name}")
        return Default().FindMessageTypeByName(name)


class Waiting:
    """A wait for an operation's end in slices, over restarts of the daemon; no I/O.

    `timeout_s`: longest wait in seconds; None: without end.
    """

    def __init__(
        self, operation: Operation | str, timeout_s: float | None, backoff: Backoff
    ) -> None:
        self.operation = (
            Operation(operation_id=operation) if isinstance(operation, str) else operation
        )
        self._ends_at = None if timeout_s is None else time.monotonic() + timeout_s
        self._retries = Retries(backoff, None)
        self._retries.progress()
        self._asked = False

    @property
    def over(self) -> bool:
        """It has ended; raises DeadlineExceededError when the time is up before."""
        if self._asked and not self.operation.done and self._slice_s() <= 0:
            raise made(still_running(self.operation.operation_id))
        return self.operation.done

    def request(self) -> WaitOperationRequest:
        """The next call's request."""
        self._asked = True
        request = WaitOperationRequest(operation_id=self.operation.operation_id)
        request.timeout.FromNanoseconds(int(max(0.0, self._slice_s()) * 1e9))
        return request

    def deadline_s(self) -> float:
        """The next call's deadline in seconds."""
        return max(0.0, self._slice_s()) + GRACE_S

    def accept(self, operation: Operation) -> None:
        """Takes note of the operation as it stands."""
        self._retries.progress()
        self.operation = operation

    def pause_s(self, error: RpcError) -> float:
        """Seconds to wait before the next call; raises `error` when it is not to be repeated."""
        return self._retries.pause_s(error)

    def _slice_s(self) -> float:
        if self._ends_at is None:
            return SLICE_S
        return min(SLICE_S, self._ends_at - time.monotonic())


def still_running(operation_id: str) -> Error:
    """What a wait that was too short ends with."""
    return Error(
        code=grpc.StatusCode.DEADLINE_EXCEEDED.value[0],
        reason="STILL_RUNNING",
        message=f"operation {operation_id} has not ended; it goes on",
        metadata={"operation_id": operation_id},
    )
