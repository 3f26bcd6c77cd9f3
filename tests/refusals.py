"""What a daemon says when it refuses a call, taken apart for tests."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

DOMAIN = "virtrpc.dev"


@dataclass
class Refusal:
    """A status with its details."""

    code: grpc.StatusCode | None = None
    message: str = ""
    reason: str = ""
    domain: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    fields: list[str] = field(default_factory=list)
    """Paths of the request fields at fault (BadRequest)."""
    field_reasons: dict[str, str] = field(default_factory=dict)
    preconditions: list[str] = field(default_factory=list)
    """Types of the PreconditionFailure's violations."""
    retry_delay_s: float | None = None


def refusal_of(error: grpc.RpcError) -> Refusal:
    """The refusal that ended a call."""
    refusal = Refusal()
    _fill(refusal, error)
    return refusal


@contextmanager
def refused(code: grpc.StatusCode, reason: str | None = None) -> Iterator[Refusal]:
    """The calls inside are refused so; the refusal is filled in when they were."""
    refusal = Refusal()
    with pytest.raises(grpc.RpcError) as caught:
        yield refusal
    _fill(refusal, caught.value)
    assert refusal.code == code, refusal
    assert reason is None or refusal.reason == reason, refusal


def _fill(refusal: Refusal, error: grpc.RpcError) -> None:
    refusal.code = error.code()
    refusal.message = error.details() or ""
    status = rpc_status.from_call(error)
    for detail in status.details if status is not None else ():
        _fill_detail(refusal, detail)


def _fill_detail(refusal: Refusal, detail: object) -> None:
    info = error_details_pb2.ErrorInfo()
    bad = error_details_pb2.BadRequest()
    failure = error_details_pb2.PreconditionFailure()
    retry = error_details_pb2.RetryInfo()
    unpack = detail.Unpack  # type: ignore[attr-defined]
    if unpack(info):
        refusal.reason, refusal.domain = info.reason, info.domain
        refusal.metadata = dict(info.metadata)
    elif unpack(bad):
        refusal.fields = [violation.field for violation in bad.field_violations]
        refusal.field_reasons = {v.field: v.reason for v in bad.field_violations}
    elif unpack(failure):
        refusal.preconditions = [violation.type for violation in failure.violations]
    elif unpack(retry):
        refusal.retry_delay_s = retry.retry_delay.ToNanoseconds() / 1e9
