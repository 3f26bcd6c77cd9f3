"""Errors of the service: one readable block, or one object for programs, and an exit code."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

import grpc
import yaml

from virtrpc.address import Address
from virtrpc.cli.structure import structure
from virtrpc.errors import OperationError, RpcError, ServiceError
from virtrpc.v1.types_pb2 import Blocker

# Exit codes of failures begin here; gRPC's codes are 1 to 16.
FIRST_EXIT_CODE = 64


def exit_code(error: ServiceError) -> int:
    """64 + the error's gRPC code, e.g. 69 for NOT_FOUND."""
    return FIRST_EXIT_CODE + int(error.status.value[0])


def rendered_error(error: ServiceError, *, format: str, address: Address) -> str:  # noqa: A002 - click's word
    """The error in the format of the output, to be written to standard error."""
    if format == "json":
        return json.dumps(_facts(error, address))
    if format == "yaml":
        return yaml.safe_dump(_facts(error, address), sort_keys=False).rstrip()
    if _nobody_answered(error):
        return "\n".join(_connection_block(error, address))
    return "\n".join(_block(error))


def _facts(error: ServiceError, address: Address) -> Mapping[str, Any]:
    facts = {"status": error.status.name, **structure(error.error)}
    if _nobody_answered(error):
        facts["address"] = str(address)
    if error.retry_after_s is not None:
        facts["retry_after_s"] = error.retry_after_s
    if isinstance(error, OperationError):
        facts["operation_id"] = error.operation.operation_id
    return facts


def _block(error: ServiceError) -> Iterator[str]:
    yield f"error: {error}"
    yield from filter(None, (_blocker_line(blocker, error) for blocker in error.blockers))
    for key, value in sorted(error.metadata.items()):
        if value not in error.message:
            yield f"  {key}: {value}"
    if isinstance(error, OperationError):
        yield f"  operation: {error.operation.operation_id}"
    if error.status == grpc.StatusCode.UNIMPLEMENTED:
        yield _unimplemented(error)
    if error.retry_after_s is not None:
        yield f"  try again in {error.retry_after_s:g} s"


def _blocker_line(blocker: Blocker, error: ServiceError) -> str:
    if blocker.message == error.message:  # a lone one says what the error itself says
        return f"  at {blocker.field}" if blocker.field else ""
    subject = f"{blocker.field}: " if blocker.field else ""
    reason = f" ({blocker.reason})" if blocker.reason else ""
    return f"  {subject}{blocker.message}{reason}"


def _unimplemented(error: ServiceError) -> str:
    """A daemon that knows the call gives a reason."""
    if error.reason:
        return "  what this host can do: virtrpc host capabilities"
    return "  the daemon is older than this command: virtrpc host show"


def _nobody_answered(error: ServiceError) -> bool:
    """The transport failed: a daemon that refuses gives a reason."""
    unavailable = error.status == grpc.StatusCode.UNAVAILABLE
    return isinstance(error, RpcError) and unavailable and not error.reason


def _served(address: Address) -> str:
    """How a daemon is told to serve an address."""
    if address.secure:
        return f"{address} --tls-cert FILE --tls-key FILE --tls-ca FILE"
    if address.is_local:
        return str(address)
    return f"grpcs://{address.authority}, and use that address here"


def _connection_block(error: ServiceError, address: Address) -> Iterator[str]:
    yield f"error: no daemon answers at {address} ({error.status.name})"
    path = address.socket_path
    if path and os.path.exists(path) and not os.access(path, os.W_OK):  # noqa: PTH110 - a socket
        yield "  you may not open its socket: be its owner, or use an address that demands TLS"
    elif path:
        yield f"  start it: systemctl start virtrpcd, or: virtrpcd --listen {address}"
    else:
        yield f"  start it on that host: virtrpcd --listen {_served(address)}"
    if address.secure:
        yield "  or it does not take your certificate: --tls-cert, --tls-key, --tls-ca"
    yield "  another daemon: --address, or VIRTRPC_ADDRESS"
    yield f"  cause: {error.message}"
