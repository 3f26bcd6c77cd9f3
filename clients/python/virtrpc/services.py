"""The services of the contract by their nouns."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

SERVICES = {
    "consoles": "Console",
    "diagnostics": "Diagnostics",
    "events": "Event",
    "firewall": "Firewall",
    "hosts": "Host",
    "images": "Image",
    "instances": "Instance",
    "interfaces": "Interface",
    "migrations": "Migration",
    "operations": "Operation",
    "volumes": "Volume",
}


class Services:
    """A channel's stubs as attributes, each made when first asked for."""

    _channel: Any

    # Hidden from type checkers: they see the attributes that a client declares.
    if not TYPE_CHECKING:

        def __getattr__(self, noun: str) -> Any:
            if noun not in SERVICES:
                raise AttributeError(f"{type(self).__name__!r} has no attribute {noun!r}")
            name = SERVICES[noun]
            module = import_module(f"virtrpc.v1.{name.lower()}_pb2_grpc")
            stub = getattr(module, f"{name}ServiceStub")(self._channel)
            setattr(self, noun, stub)
            return stub
