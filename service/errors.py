"""The one table from errors of the contract to gRPC status, and the words that go with it."""

import re
from collections.abc import Mapping
from types import MappingProxyType

import grpc
from google.protobuf.any_pb2 import Any
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from virtrpc.v1 import types_pb2

from backends import errors

DOMAIN = "virtrpc.dev"
# Clients refuse trailers beyond 8 KiB, where a status stands in base64.
_MAX_STATUS_BYTES = 4096
_MAX_MESSAGE_BYTES = 1024
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_MAX_VIOLATION_BYTES = 512
_MAX_FIELD_BYTES = 256


class UnauthenticatedError(errors.ContractError):
    """Nobody knows who calls."""

    reason = "UNAUTHENTICATED"


class DeniedError(errors.ContractError):
    """Who calls lacks the role that the verb needs."""

    reason = "ROLE_MISSING"


class OverloadedError(errors.ContractError):
    """Too many calls of a class at a time; it may be tried again after so many seconds."""

    reason = "OVERLOADED"

    def __init__(
        self, message: str, *, metadata: Mapping[str, str] | None = None, retry_after_s: int = 1
    ) -> None:
        super().__init__(message, metadata=metadata)
        self.retry_after_s = retry_after_s


class ShuttingDownError(errors.UnreachableError):
    """The daemon stops; another will answer."""

    reason = "SHUTTING_DOWN"


class StartingError(errors.UnreachableError):
    """The daemon has not finished its start."""

    reason = "STARTING"


class Interrupted(errors.ContractError):
    """The daemon died while the operation ran, and it was rolled back."""

    reason = "DAEMON_RESTARTED"


class RecordedError(errors.ContractError):
    """The error with which an operation ended, told again."""

    def __init__(self, error: types_pb2.Error) -> None:
        super().__init__(error.message, reason=error.reason, metadata=error.metadata)
        self.error = error


_CODES: Mapping[type[errors.ContractError], grpc.StatusCode] = {
    errors.InvalidArgumentError: grpc.StatusCode.INVALID_ARGUMENT,
    errors.NotFoundError: grpc.StatusCode.NOT_FOUND,
    errors.AlreadyExistsError: grpc.StatusCode.ALREADY_EXISTS,
    errors.WrongStateError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.UnsupportedError: grpc.StatusCode.UNIMPLEMENTED,
    errors.OutOfRangeError: grpc.StatusCode.OUT_OF_RANGE,
    errors.PermissionRefusedError: grpc.StatusCode.PERMISSION_DENIED,
    errors.DamagedError: grpc.StatusCode.DATA_LOSS,
    errors.NoRoomError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.BusyError: grpc.StatusCode.ABORTED,
    errors.UnreachableError: grpc.StatusCode.UNAVAILABLE,
    errors.PeerDistrustedError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.TimedOutError: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.CancelledError: grpc.StatusCode.CANCELLED,
    errors.HypervisorError: grpc.StatusCode.INTERNAL,
    errors.MigrationFailedError: grpc.StatusCode.ABORTED,
    UnauthenticatedError: grpc.StatusCode.UNAUTHENTICATED,
    DeniedError: grpc.StatusCode.PERMISSION_DENIED,
    OverloadedError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Interrupted: grpc.StatusCode.ABORTED,
}
# After these the same call may succeed, after so many seconds.
_RETRY_AFTER_S: Mapping[type[errors.ContractError], int] = {
    errors.BusyError: 1,
    errors.UnreachableError: 1,
    errors.PeerDistrustedError: 60,  # somebody has to change a configuration
}


def code_of(error: errors.ContractError) -> int:
    """Number of the error's google.rpc.Code."""
    if isinstance(error, RecordedError):
        return error.error.code
    if isinstance(error, errors.BlockedError):
        codes = {code_of(blocker) for blocker in error.blockers}
        return codes.pop() if len(codes) == 1 else _number(grpc.StatusCode.FAILED_PRECONDITION)
    for kind in type(error).__mro__:
        if kind in _CODES:
            return _number(_CODES[kind])
    return _number(grpc.StatusCode.INTERNAL)


def record_of(error: errors.ContractError) -> types_pb2.Error:
    """The error as it stands in an operation."""
    if isinstance(error, RecordedError):
        return error.error
    return types_pb2.Error(
        code=code_of(error),
        reason=error.reason,
        message=_plain(str(error)),
        metadata={key: _plain(value) for key, value in error.metadata.items()},
        blockers=[
            types_pb2.Blocker(
                reason=v.reason,
                field=_plain(v.field, _MAX_FIELD_BYTES),
                message=_plain(v.message, _MAX_VIOLATION_BYTES),
            )
            for v in error.violations
            if v.field or isinstance(error, errors.BlockedError)
        ],
    )


def status_of(
    error: errors.ContractError, facts: Mapping[str, str] = MappingProxyType({})
) -> status_pb2.Status:
    """The error as a caller gets it, with its details: as many violations as there is room for.

    `facts` go to its metadata.
    """
    record = record_of(error)
    retry = _retry_info(error)
    blockers = list(record.blockers)
    while True:
        info = _error_info(record, facts, left_out=len(record.blockers) - len(blockers))
        details = [_packed(info), *_violations(record.code, blockers), *retry]
        status = status_pb2.Status(code=record.code, message=record.message, details=details)
        if status.ByteSize() <= _MAX_STATUS_BYTES or not blockers:
            return status
        blockers.pop()


def internal_error(incident: str) -> errors.ContractError:
    """What a caller is told of a defect: an id that stands in the log, nothing else."""
    return errors.ContractError(
        f"internal error; incident {incident} in the daemon's log", metadata={"incident": incident}
    )


def _error_info(
    record: types_pb2.Error, facts: Mapping[str, str], *, left_out: int
) -> error_details_pb2.ErrorInfo:
    metadata = {**record.metadata, **facts}
    if left_out:
        metadata["violations_left_out"] = str(left_out)
    return error_details_pb2.ErrorInfo(reason=record.reason, domain=DOMAIN, metadata=metadata)


def _violations(code: int, blockers: list[types_pb2.Blocker]) -> list[Any]:
    with_field = [blocker for blocker in blockers if blocker.field]
    details = []
    if with_field:
        details.append(_packed(_bad_request(with_field)))
    if code == _number(grpc.StatusCode.FAILED_PRECONDITION) and blockers:
        details.append(_packed(_precondition_failure(blockers)))
    return details


def _bad_request(blockers: list[types_pb2.Blocker]) -> error_details_pb2.BadRequest:
    violation = error_details_pb2.BadRequest.FieldViolation
    return error_details_pb2.BadRequest(
        field_violations=[
            violation(field=b.field, description=b.message, reason=b.reason) for b in blockers
        ]
    )


def _precondition_failure(
    blockers: list[types_pb2.Blocker],
) -> error_details_pb2.PreconditionFailure:
    violation = error_details_pb2.PreconditionFailure.Violation
    return error_details_pb2.PreconditionFailure(
        violations=[
            violation(type=b.reason, subject=b.field, description=b.message) for b in blockers
        ]
    )


def _retry_info(error: errors.ContractError) -> list[Any]:
    seconds = _retry_after_s(error)
    if not seconds:
        return []
    info = error_details_pb2.RetryInfo()
    info.retry_delay.seconds = seconds
    return [_packed(info)]


def _retry_after_s(error: errors.ContractError) -> int:
    """0: the same call would fail again."""
    if isinstance(error, OverloadedError):
        return error.retry_after_s
    kinds = (kind for kind in type(error).__mro__ if kind in _RETRY_AFTER_S)
    return next((_RETRY_AFTER_S[kind] for kind in kinds), 0)


def _packed(message: Message) -> Any:
    packed = Any()
    packed.Pack(message)
    return packed


def _number(code: grpc.StatusCode) -> int:
    number: int = code.value[0]
    return number


def _plain(text: str, most: int = _MAX_MESSAGE_BYTES) -> str:
    """Printable ASCII of bounded length.

    Anything else leaves clients hanging or is refused by them, and a control character
    would speak to the terminal that the message is shown on.
    """
    ascii_text = (
        text.strip().replace("\n", "; ").encode("ascii", "backslashreplace").decode("ascii")
    )
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", ascii_text)[:most]
