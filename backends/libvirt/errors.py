"""libvirt's errors → errors of the contract, by code, never by text."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import libvirt

from backends.errors import (
    ContractError,
    HypervisorError,
    InstanceNotFoundError,
    NoRoomError,
    TimedOutError,
    UnreachableError,
    UnsupportedError,
    WrongStateError,
)

# The connection, or the daemon behind it, has gone.
_LOST_CODES = frozenset(
    {libvirt.VIR_ERR_NO_CONNECT, libvirt.VIR_ERR_INVALID_CONN, libvirt.VIR_ERR_RPC}
)
_RPC_DOMAINS = frozenset({libvirt.VIR_FROM_RPC, libvirt.VIR_FROM_REMOTE})
_UNSUPPORTED_CODES = frozenset(
    {
        libvirt.VIR_ERR_NO_SUPPORT,
        libvirt.VIR_ERR_OPERATION_UNSUPPORTED,
        libvirt.VIR_ERR_CONFIG_UNSUPPORTED,
    }
)

_KINDS: Mapping[int, type[ContractError]] = {
    libvirt.VIR_ERR_OPERATION_INVALID: WrongStateError,
    libvirt.VIR_ERR_OPERATION_TIMEOUT: TimedOutError,
    libvirt.VIR_ERR_AGENT_UNRESPONSIVE: TimedOutError,
    libvirt.VIR_ERR_NO_MEMORY: NoRoomError,
}


def is_gone(error: libvirt.libvirtError) -> bool:
    """The domain does not exist (any more)."""
    return bool(error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN)


def is_lost(error: libvirt.libvirtError) -> bool:
    """The hypervisor is out of reach."""
    if error.get_error_code() in _LOST_CODES:
        return True
    system = (libvirt.VIR_ERR_SYSTEM_ERROR, libvirt.VIR_ERR_INTERNAL_ERROR)
    return error.get_error_domain() in _RPC_DOMAINS and error.get_error_code() in system


def translated(error: libvirt.libvirtError, instance_id: str = "") -> ContractError:
    """The error of the contract that a libvirt error stands for."""
    code, message = error.get_error_code(), error.get_error_message() or str(error)
    if is_gone(error) and instance_id:
        return InstanceNotFoundError(instance_id)
    if is_lost(error):
        return UnreachableError(f"libvirt cannot be reached: {message}")
    if code in _UNSUPPORTED_CODES:
        return UnsupportedError("hypervisor", why=message)
    kind = _KINDS.get(code, HypervisorError)
    return kind(message, metadata={"libvirt_code": str(code)})


@contextmanager
def translating(instance_id: str = "") -> Iterator[None]:
    """Raises libvirt's errors inside as errors of the contract."""
    try:
        yield
    except libvirt.libvirtError as error:
        raise translated(error, instance_id) from error
