"""What `instance spawn` asks for: a file of JSON or YAML, and flags that override it.

The file is a SpawnInstanceRequest or an InstanceSpec in protobuf JSON, field
names in either case.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import click
from google.protobuf.json_format import ParseDict

from virtrpc.cli.message_file import parsed, telling
from virtrpc.cli.nic import with_ports
from virtrpc.v1.instance_pb2 import SpawnInstanceRequest
from virtrpc.v1.spec_pb2 import GuestConfig, InstanceSpec, InterfaceSpec

DEFAULT_VCPUS = 1
DEFAULT_MEMORY_MIB = 512
_REQUEST_FIELDS = {"spec", "instance_id", "instanceId"}


@dataclass(frozen=True)
class Flags:
    """The flags of `instance spawn`; None and what is empty are not given."""

    name: str = ""
    instance_id: str = ""
    image: str = ""
    kernel: str = ""
    ramdisk: str = ""
    kernel_args: str = ""
    vcpus: int | None = None
    memory_mib: int | None = None
    disk_gib: int | None = None
    interfaces: Iterable[InterfaceSpec] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    request_id: str = ""
    validate_only: bool = False


def request(flags: Flags, file: str | None) -> SpawnInstanceRequest:
    """The request that file (a path, or "-" for standard input) and flags make together.

    Raises click.UsageError for a file that cannot be read or is neither message.
    """
    made = from_file(file) if file else SpawnInstanceRequest()
    made.instance_id = flags.instance_id or made.instance_id or str(uuid.uuid4())
    made.request_id = flags.request_id or made.request_id
    made.validate_only = flags.validate_only or made.validate_only
    _override(made.spec, flags)
    if flags.interfaces:
        del made.spec.interfaces[:]
        made.spec.interfaces.extend(with_ports(made.instance_id, flags.interfaces))
    return made


def _override(spec: InstanceSpec, flags: Flags) -> None:
    spec.name = flags.name or spec.name
    spec.flavor.vcpus = flags.vcpus or spec.flavor.vcpus or DEFAULT_VCPUS
    spec.flavor.memory_mib = spec.flavor.memory_mib or DEFAULT_MEMORY_MIB
    if flags.memory_mib is not None:
        spec.flavor.memory_mib = flags.memory_mib
    if flags.disk_gib is not None:
        spec.flavor.root_disk_gib = flags.disk_gib
    spec.metadata.update(flags.metadata)
    spec.labels.update(flags.labels)
    images = {
        "image_id": flags.image,
        "kernel_image_id": flags.kernel,
        "ramdisk_image_id": flags.ramdisk,
        "kernel_args": flags.kernel_args,
    }
    for name, value in images.items():
        if value:
            setattr(spec.image, name, value)


def from_file(file: str) -> SpawnInstanceRequest:
    """The request in a file (a path, or "-" for standard input); a bare InstanceSpec is its `spec`.

    Raises click.UsageError for a file that cannot be read or is neither message.
    """
    made = SpawnInstanceRequest()
    with telling(file):
        content = parsed(file)
        ParseDict(content, made if _REQUEST_FIELDS & content.keys() else made.spec)
    return made


def guest_from_file(file: str) -> GuestConfig:
    """What a guest is told, in a file (a path, or "-" for standard input).

    Raises click.UsageError for a file that cannot be read or is no GuestConfig; it tells
    nothing of a content that may be secret.
    """
    made = GuestConfig()
    try:
        with telling(file):
            ParseDict(parsed(file), made)
    except click.UsageError:
        raise click.UsageError(f"{file}: no GuestConfig can be read from it") from None
    return made
