"""What the clients raise: one tree for refused calls and for failed operations.

    ServiceError                what the service said: a virtrpc.v1.Error, and when to retry
    ├── RpcError                a call ended with a status; also a grpc.RpcError
    │   ├── NotFoundError, InvalidArgumentError, …   one class for each code
    └── OperationError          an operation ended FAILED or CANCELLED

Both kinds carry the same facts, so that a caller need not know whether a verb
is an operation. A status brings them as google.rpc details (ErrorInfo,
BadRequest, PreconditionFailure, RetryInfo); decoding these needs the package
googleapis-common-protos. Without it an error has its code and message only.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

import grpc
from google.protobuf.message import DecodeError

from virtrpc.v1.operation_pb2 import Operation, OperationState
from virtrpc.v1.types_pb2 import Blocker, Error

try:
    from google.rpc import error_details_pb2, status_pb2
except ImportError:  # the base package does without
    error_details_pb2 = status_pb2 = None

_DETAILS_KEY = "grpc-status-details-bin"


class ServiceError(Exception):
    """The service refused or failed to do something.

    `error` is a virtrpc.v1.Error: code, reason, message, metadata and blockers.
    `retry_after_s` is how many seconds to wait before trying again, or None
    where the service said nothing of it.
    """

    def __init__(self, error: Error, *, retry_after_s: float | None = None) -> None:
        super().__init__(error.message)
        self.error = error
        self.retry_after_s = retry_after_s

    @property
    def status(self) -> grpc.StatusCode:
        """The error's code by its name; UNKNOWN for a code that gRPC does not have."""
        return _STATUS.get(self.error.code, grpc.StatusCode.UNKNOWN)

    @property
    def message(self) -> str:
        """One sentence for people."""
        return self.error.message

    @property
    def reason(self) -> str:
        """Stable word for programs, e.g. "INSTANCE_NOT_FOUND"; empty when none came."""
        return self.error.reason

    @property
    def metadata(self) -> dict[str, str]:
        """Facts that go with the reason, e.g. instance_id."""
        return dict(self.error.metadata)

    @property
    def blockers(self) -> list[Blocker]:
        """What was wrong, each with the path of its request field where one is concerned."""
        return list(self.error.blockers)

    def __str__(self) -> str:
        return f"{self.message} ({self.reason or self.status.name})"


class OperationError(ServiceError):
    """An operation ended FAILED or CANCELLED; `operation` is as it stands."""

    def __init__(self, operation: Operation) -> None:
        super().__init__(_error_of(operation))
        self.operation = operation


class RpcError(ServiceError, grpc.RpcError):
    """A call ended with a status other than OK."""

    handles: ClassVar[grpc.StatusCode | None] = None

    @property
    def transient(self) -> bool:
        """Asking again may bring what this call did not: for reads and streams."""
        return self.status in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED}

    def code(self) -> grpc.StatusCode:
        """The status, as grpc.Call gives it."""
        return self.status

    def details(self) -> str:
        """The message, as grpc.Call gives it."""
        return self.message


class CancelledError(RpcError):
    """The caller gave the call up."""

    handles = grpc.StatusCode.CANCELLED


class InvalidArgumentError(RpcError):
    """The request is malformed; `blockers` have the field paths."""

    handles = grpc.StatusCode.INVALID_ARGUMENT


class DeadlineExceededError(RpcError):
    """The answer did not come in time; what was begun goes on."""

    handles = grpc.StatusCode.DEADLINE_EXCEEDED


class NotFoundError(RpcError):
    """Something that the request names does not exist."""

    handles = grpc.StatusCode.NOT_FOUND


class AlreadyExistsError(RpcError):
    """What the request would make is there already, and is not the same."""

    handles = grpc.StatusCode.ALREADY_EXISTS


class PermissionDeniedError(RpcError):
    """The caller's role does not suffice."""

    handles = grpc.StatusCode.PERMISSION_DENIED


class ResourceExhaustedError(RpcError):
    """No room, too many calls, or a watcher that was too slow."""

    handles = grpc.StatusCode.RESOURCE_EXHAUSTED


class FailedPreconditionError(RpcError):
    """Not possible in the present state; `blockers` say what stands in the way."""

    handles = grpc.StatusCode.FAILED_PRECONDITION


class AbortedError(RpcError):
    """Another mutation runs: retry later."""

    handles = grpc.StatusCode.ABORTED


class OutOfRangeError(RpcError):
    """Beyond what there is, e.g. past the end of a console log."""

    handles = grpc.StatusCode.OUT_OF_RANGE


class UnimplementedError(RpcError):
    """This backend on this host cannot do it, or the daemon is older than the call."""

    handles = grpc.StatusCode.UNIMPLEMENTED


class InternalError(RpcError):
    """A defect of the service; `metadata["incident"]` finds it in the daemon's log."""

    handles = grpc.StatusCode.INTERNAL


class UnavailableError(RpcError):
    """The daemon or its hypervisor is out of reach: retry."""

    handles = grpc.StatusCode.UNAVAILABLE


class UnauthenticatedError(RpcError):
    """The daemon does not know who calls."""

    handles = grpc.StatusCode.UNAUTHENTICATED


_STATUS: dict[int, grpc.StatusCode] = {status.value[0]: status for status in grpc.StatusCode}
_CLASSES = {cls.handles: cls for cls in RpcError.__subclasses__()}


def from_grpc(call: grpc.RpcError) -> RpcError:
    """The typed error of a call that grpc or grpc.aio ended with a status."""
    ended: Any = call
    status: grpc.StatusCode = ended.code()
    error = Error(code=status.value[0], message=ended.details() or status.name)
    retry_after_s = _decode(ended.trailing_metadata() or (), error)
    return made(error, retry_after_s=retry_after_s)


def made(error: Error, *, retry_after_s: float | None = None) -> RpcError:
    """An error of the class that goes with the code of `error`."""
    cls = _CLASSES.get(_STATUS.get(error.code), RpcError)
    return cls(error, retry_after_s=retry_after_s)


def _decode(metadata: Iterable[tuple[str, Any]], error: Error) -> float | None:
    """Fills `error` from a google.rpc.Status among trailing metadata; returns RetryInfo's delay."""
    packed = next((value for key, value in metadata if key == _DETAILS_KEY), None)
    if packed is None or status_pb2 is None:
        return None
    delays_s = [_merge(error, detail) for detail in _details(packed)]
    return next((delay_s for delay_s in delays_s if delay_s is not None), None)


def _details(packed: bytes) -> list[Any]:
    """The details in a google.rpc.Status that are of google.rpc; none of a broken one."""
    found = []
    try:
        for detail in status_pb2.Status.FromString(packed).details:
            kind = getattr(error_details_pb2, detail.TypeName().rpartition(".")[2], None)
            if kind is not None and detail.Is(kind.DESCRIPTOR):
                found.append(kind.FromString(detail.value))
    except DecodeError:  # a proxy's, or a defect: code and message still hold
        return []
    return found


def _merge(error: Error, detail: Any) -> float | None:
    """Adds one detail to `error`; returns the delay of a RetryInfo."""
    name = detail.DESCRIPTOR.name
    if name == "ErrorInfo":
        error.reason = detail.reason
        error.metadata.update(detail.metadata)
    elif name == "BadRequest":
        # FieldViolation.reason is younger than the oldest supported package.
        found = detail.field_violations
        _block(error, ((getattr(v, "reason", ""), v.field, v.description) for v in found))
    elif name == "PreconditionFailure":
        _block(error, ((v.type, v.subject, v.description) for v in detail.violations))
    elif name == "RetryInfo":
        return float(detail.retry_delay.seconds + detail.retry_delay.nanos / 1e9)
    return None


def _block(error: Error, found: Iterable[tuple[str, str, str]]) -> None:
    """Adds blockers (reason, field, message); one told as both kinds of detail counts once."""
    known = {(blocker.field, blocker.message): blocker for blocker in error.blockers}
    for reason, field, message in found:
        if (field, message) in known:
            known[field, message].reason = known[field, message].reason or reason
        else:
            error.blockers.add(reason=reason, field=field, message=message)


def _error_of(operation: Operation) -> Error:
    """The error of an ended operation; a CANCELLED one may have none of its own."""
    error = Error()
    error.CopyFrom(operation.error)
    if not error.code:
        cancelled = operation.state == OperationState.OPERATION_STATE_CANCELLED
        status = grpc.StatusCode.CANCELLED if cancelled else grpc.StatusCode.UNKNOWN
        error.code = status.value[0]
    if not error.message:
        word = _STATUS.get(error.code, grpc.StatusCode.UNKNOWN).name.lower()
        error.message = f"{operation.verb or 'operation'} {operation.operation_id} ended: {word}"
    return error
