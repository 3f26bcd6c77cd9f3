"""Client library, stubs and command line of the virtrpc virtualization service.

    from virtrpc import Client

    with Client() as client:
        for instance in client.instances.ListInstances(ListInstancesRequest()).instances:
            print(instance.name)

`virtrpc.v1` holds the generated stubs, `client` the sync and asyncio clients
over them, `errors` what they raise, `address` where a daemon is found. The
names below are imported when first used: a program that needs the stubs or the
address alone loads nothing else.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from virtrpc.address import Address, default_socket
    from virtrpc.client import AsyncClient, Client
    from virtrpc.errors import OperationError, RpcError, ServiceError
    from virtrpc.tls import tls_credentials

__all__ = [
    "Address",
    "AsyncClient",
    "Client",
    "OperationError",
    "RpcError",
    "ServiceError",
    "default_socket",
    "tls_credentials",
]

_HOMES = {
    "Address": "address",
    "AsyncClient": "client",
    "Client": "client",
    "OperationError": "errors",
    "RpcError": "errors",
    "ServiceError": "errors",
    "default_socket": "address",
    "tls_credentials": "tls",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
