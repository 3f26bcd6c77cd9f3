"""One table from errors to status: nothing of the tree is without a code or fit for the wire."""

import importlib
import pkgutil
from collections.abc import Iterator

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from hypothesis import given
from hypothesis import strategies as st
from virtrpc.v1 import types_pb2

import service
from backends import errors
from service.consoles.tokens import TokenRefusedError
from service.errors import (
    DOMAIN,
    OverloadedError,
    RecordedError,
    ShuttingDownError,
    code_of,
    internal_error,
    record_of,
    status_of,
)

CODES = {
    "InvalidArgumentError": grpc.StatusCode.INVALID_ARGUMENT,
    "NotFoundError": grpc.StatusCode.NOT_FOUND,
    "InstanceNotFoundError": grpc.StatusCode.NOT_FOUND,
    "AlreadyExistsError": grpc.StatusCode.ALREADY_EXISTS,
    "WrongStateError": grpc.StatusCode.FAILED_PRECONDITION,
    "BlockedError": grpc.StatusCode.FAILED_PRECONDITION,
    "InvalidFieldsError": grpc.StatusCode.INVALID_ARGUMENT,
    "UnsupportedError": grpc.StatusCode.UNIMPLEMENTED,
    "OutOfRangeError": grpc.StatusCode.OUT_OF_RANGE,
    "NoRoomError": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "BusyError": grpc.StatusCode.ABORTED,
    "UnreachableError": grpc.StatusCode.UNAVAILABLE,
    "ShuttingDownError": grpc.StatusCode.UNAVAILABLE,
    "StartingError": grpc.StatusCode.UNAVAILABLE,
    "LogLostError": grpc.StatusCode.UNAVAILABLE,
    "TimedOutError": grpc.StatusCode.DEADLINE_EXCEEDED,
    "CancelledError": grpc.StatusCode.CANCELLED,
    "AbandonedError": grpc.StatusCode.CANCELLED,
    "PermissionRefusedError": grpc.StatusCode.PERMISSION_DENIED,
    "TokenRefusedError": grpc.StatusCode.PERMISSION_DENIED,
    "DamagedError": grpc.StatusCode.DATA_LOSS,
    "UploadBrokenOffError": grpc.StatusCode.CANCELLED,
    "HypervisorError": grpc.StatusCode.INTERNAL,
    "UnauthenticatedError": grpc.StatusCode.UNAUTHENTICATED,
    "DeniedError": grpc.StatusCode.PERMISSION_DENIED,
    "OverloadedError": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "TooSlowError": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "Interrupted": grpc.StatusCode.ABORTED,
    "MigrationFailedError": grpc.StatusCode.ABORTED,
    "PeerUnreachableError": grpc.StatusCode.UNAVAILABLE,
    "PeerDistrustedError": grpc.StatusCode.FAILED_PRECONDITION,
    "PeerRefusedError": grpc.StatusCode.FAILED_PRECONDITION,
    "PeerMismatchError": grpc.StatusCode.FAILED_PRECONDITION,
}
RETRIED = {
    "BusyError", "UnreachableError", "ShuttingDownError", "StartingError", "LogLostError",
    "OverloadedError", "TooSlowError", "PeerDistrustedError",
    "PeerUnreachableError",
}  # fmt: skip


def tree() -> Iterator[type[errors.ContractError]]:
    """Every class of the tree that the daemon has."""
    for module in pkgutil.walk_packages(service.__path__, "service."):
        if module.name != "service.main":
            importlib.import_module(module.name)
    todo: list[type[errors.ContractError]] = [errors.ContractError]
    while todo:
        kind = todo.pop()
        homes = ("backends.errors", "service.")
        children = [c for c in kind.__subclasses__() if c.__module__.startswith(homes)]
        todo.extend(children)
        if kind not in (errors.ContractError, RecordedError):
            yield kind


KINDS = sorted(set(tree()), key=lambda kind: kind.__name__)


def made(kind: type[errors.ContractError], message: str = "it is so") -> errors.ContractError:
    """An error of a class, whatever its arguments are."""
    if issubclass(kind, errors.BlockedError):
        part = {"InvalidFieldsError": errors.InvalidArgumentError}.get(
            kind.__name__, errors.WrongStateError
        )
        return kind([part(message, field="spec.name"), part("another", field="spec.flavor")])
    if issubclass(kind, errors.UnsupportedError):
        return kind("spawn_instance", why=message)
    if issubclass(kind, TokenRefusedError):
        return kind()
    if issubclass(kind, errors.InstanceNotFoundError):
        return kind("11111111-1111-4111-8111-111111111111")
    return kind(message)


def detail(status: status_pb2.Status, kind: type) -> object:
    for packed in status.details:
        message = kind()
        if packed.Unpack(message):
            return message
    return None


def test_every_class_of_the_tree_stands_in_this_table() -> None:
    assert {kind.__name__ for kind in KINDS} == set(CODES)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: str(kind.__name__))
def test_error_has_its_code_and_reason(kind: type[errors.ContractError]) -> None:
    error = made(kind)
    status = status_of(error)
    assert status.code == CODES[kind.__name__].value[0]
    info = detail(status, error_details_pb2.ErrorInfo)
    assert isinstance(info, error_details_pb2.ErrorInfo)
    assert (info.reason, info.domain) == (error.reason, DOMAIN)
    assert info.reason.replace("_", "").isalpha()
    assert info.reason.isupper()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: str(kind.__name__))
def test_error_that_may_pass_says_when_to_retry(kind: type[errors.ContractError]) -> None:
    retry = detail(status_of(made(kind)), error_details_pb2.RetryInfo)
    assert (retry is not None) == (kind.__name__ in RETRIED)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: str(kind.__name__))
def test_error_is_told_the_same_by_an_operation(kind: type[errors.ContractError]) -> None:
    error = made(kind)
    again, first = status_of(RecordedError(record_of(error))), status_of(error)
    assert (again.code, again.message) == (first.code, first.message)
    for kind_of_detail in (error_details_pb2.ErrorInfo, error_details_pb2.BadRequest,
                           error_details_pb2.PreconditionFailure):  # fmt: skip
        assert detail(again, kind_of_detail) == detail(first, kind_of_detail)


def test_field_at_fault_stands_in_bad_request() -> None:
    status = status_of(errors.NotFoundError("no", reason="IMAGE_NOT_FOUND", field="spec.image"))
    bad = detail(status, error_details_pb2.BadRequest)
    assert isinstance(bad, error_details_pb2.BadRequest)
    (violation,) = bad.field_violations
    assert (violation.field, violation.reason) == ("spec.image", "IMAGE_NOT_FOUND")


def test_blockers_of_one_code_keep_it() -> None:
    error = errors.BlockedError([errors.NotFoundError("a"), errors.NotFoundError("b")])
    assert code_of(error) == grpc.StatusCode.NOT_FOUND.value[0]


def test_blockers_of_several_codes_are_a_failed_precondition_with_all_of_them() -> None:
    error = errors.BlockedError(
        [
            errors.NotFoundError("no image", reason="IMAGE_NOT_FOUND", field="spec.image.image_id"),
            errors.NoRoomError("no memory"),
        ]
    )
    status = status_of(error)
    assert status.code == grpc.StatusCode.FAILED_PRECONDITION.value[0]
    failure = detail(status, error_details_pb2.PreconditionFailure)
    assert isinstance(failure, error_details_pb2.PreconditionFailure)
    assert [violation.type for violation in failure.violations] == ["IMAGE_NOT_FOUND", "NO_ROOM"]


def test_defect_tells_an_incident_and_nothing_else() -> None:
    status = status_of(internal_error("incident-1"))
    assert status.code == grpc.StatusCode.INTERNAL.value[0]
    info = detail(status, error_details_pb2.ErrorInfo)
    assert isinstance(info, error_details_pb2.ErrorInfo)
    assert dict(info.metadata) == {"incident": "incident-1"}


@given(message=st.text(max_size=5000), field=st.text(max_size=5000), value=st.text(max_size=5000))
def test_details_are_ascii_of_bounded_length(message: str, field: str, value: str) -> None:
    error = errors.InvalidArgumentError(message, field=field, metadata={"what": value})
    status = status_of(error)
    assert status.message.isascii()
    assert len(status.message) <= 1024
    assert status.ByteSize() <= 4096


@given(st.lists(st.text(min_size=200, max_size=2000), min_size=1, max_size=200))
def test_details_of_many_violations_stay_below_what_clients_accept(paths: list[str]) -> None:
    """gRPC clients refuse metadata beyond 8 KiB, and may do so from half of it."""
    faults = [errors.InvalidArgumentError("bad " * 50, field=path) for path in paths]
    for error in (
        errors.BlockedError(faults),
        errors.BlockedError([*faults, errors.BusyError("b", field="b")]),
    ):
        status = status_of(error)
        assert status.ByteSize() <= 4096
        bad, info = (detail(status, kind) for kind in (error_details_pb2.BadRequest,
                                                       error_details_pb2.ErrorInfo))  # fmt: skip
        assert isinstance(bad, error_details_pb2.BadRequest)
        assert isinstance(info, error_details_pb2.ErrorInfo)
        left_out = int(info.metadata.get("violations_left_out", "0"))
        assert len(error.blockers) == len(bad.field_violations) + left_out


def test_surrogates_do_not_keep_a_status_from_the_wire() -> None:
    status = status_of(errors.HypervisorError("name \udc80 \x00 of a file"))
    assert status_pb2.Status.FromString(status.SerializeToString()) == status


def test_overload_and_shutdown_have_reasons_of_their_own() -> None:
    assert OverloadedError("x").reason == "OVERLOADED"
    assert ShuttingDownError("x").reason == "SHUTTING_DOWN"
    assert types_pb2.Error(reason="X") == RecordedError(types_pb2.Error(reason="X")).error
