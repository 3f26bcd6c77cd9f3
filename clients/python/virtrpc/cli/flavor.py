"""Options of another size and shape for an instance."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from virtrpc.cli.session import Session
from virtrpc.v1.instance_pb2 import GetInstanceRequest
from virtrpc.v1.spec_pb2 import Flavor

Decorated = TypeVar("Decorated", bound=Callable[..., Any])
_FIELDS = {
    "--vcpus": ("vcpus", "vCPUs."),
    "--memory": ("memory_mib", "Memory in MiB."),
    "--disk": ("root_disk_gib", "Root disk in GiB."),
    "--ephemeral": ("ephemeral_disk_gib", "Ephemeral disk in GiB."),
    "--swap": ("swap_mib", "Swap disk in MiB."),
}


def flavor_options(command: Decorated) -> Decorated:
    """One for each size; what is not given stays."""
    for option, (field, text) in reversed(_FIELDS.items()):
        kind = click.IntRange(min=1)
        command = click.option(option, field, type=kind, metavar="N", help=text)(command)
    return command


def asked_flavor(session: Session, instance_id: str, sizes: Mapping[str, Any]) -> Flavor | None:
    """The instance's flavor with the sizes that were given; None where none was."""
    given = {field: sizes[field] for field, _ in _FIELDS.values() if sizes.get(field)}
    if not given:
        return None
    request = GetInstanceRequest(instance_id=instance_id)
    flavor = Flavor()
    flavor.CopyFrom(session.client.instances.GetInstance(request).instance.spec.flavor)
    for field, size in given.items():
        setattr(flavor, field, size)
    return flavor
