"""Spawns that cannot be meant, and what each is refused with."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import grpc
from google.protobuf.message import Message
from virtrpc.v1.instance_pb2 import SpawnInstanceRequest

INVALID = grpc.StatusCode.INVALID_ARGUMENT
MIB = 1 << 20
PORT_ID = "11111111-1111-4111-8111-111111111111"


@dataclass(frozen=True)
class Bad:
    """A change that makes a good request bad; `fields` are the paths that are found at fault."""

    change: Callable[[SpawnInstanceRequest], object]
    fields: tuple[str, ...]


def _set(path: str, value: object) -> Callable[[SpawnInstanceRequest], object]:
    """Sets a field by its path."""

    def change(request: SpawnInstanceRequest) -> None:
        message: Message = request
        *parents, name = path.split(".")
        for parent in parents:
            message = getattr(message, parent)
        setattr(message, name, value)

    return change


def _field(path: str, value: object) -> Bad:
    return Bad(_set(path, value), (path,))


def _interface(**fields: object) -> Callable[[SpawnInstanceRequest], object]:
    values = {"port_id": PORT_ID, "user": {}, **fields}
    return lambda r: r.spec.interfaces.add(**values)


def _many_labels(request: SpawnInstanceRequest) -> None:
    for number in range(65):
        request.spec.labels[f"label{number}"] = ""


def _many_metadata(request: SpawnInstanceRequest) -> None:
    for number in range(100_000):
        request.spec.metadata[f"key{number}"] = "x"


def _name_twice(request: SpawnInstanceRequest) -> None:
    _interface(security_group_ids=[PORT_ID, PORT_ID])(request)


BAD: Mapping[str, Bad] = {
    "no id": _field("instance_id", ""),
    "id that is no UUID": _field("instance_id", "web-1"),
    "id with a trailing newline": _field("instance_id", f"{PORT_ID}\n"),
    "id in braces": _field("instance_id", f"{{{PORT_ID}}}"),
    "id that leads elsewhere": _field("instance_id", "../../etc/passwd"),
    "id of 1 MB": _field("instance_id", "a" * MIB),
    "no specification": Bad(lambda r: r.ClearField("spec"), ("spec",)),
    "no flavor": Bad(lambda r: r.spec.ClearField("flavor"), ("spec.flavor",)),
    "no memory": _field("spec.flavor.memory_mib", 0),
    "too much memory": _field("spec.flavor.memory_mib", 2**63),
    "no vcpus": _field("spec.flavor.vcpus", 0),
    "too many vcpus": _field("spec.flavor.vcpus", 2**32 - 1),
    "name of 1 MB": _field("spec.name", "n" * MIB),
    "name with NUL": _field("spec.name", "web\x001"),
    "name with a leading dash": _field("spec.name", "-object"),
    "name with a leading dot": _field("spec.name", ".hidden"),
    "name that leads elsewhere": _field("spec.name", "../x"),
    "name with a newline": _field("spec.name", "web\n1"),
    "name with a trailing newline": _field("spec.name", "web\n"),
    "name with XML": _field("spec.name", "<name>"),
    "name that is not ASCII": _field("spec.name", "wéb"),
    "image that leads elsewhere": _field("spec.image.image_id", "../x"),
    "image that is a path": _field("spec.image.image_id", "/etc/passwd"),
    "image with a leading dash": _field("spec.image.image_id", "-drive"),
    "image with NUL": _field("spec.image.image_id", "guest\x00"),
    "image with a trailing newline": _field("spec.image.image_id", "guest\n"),
    "image of 1 MB": _field("spec.image.image_id", "i" * MIB),
    "kernel that leads elsewhere": _field("spec.image.kernel_image_id", "a/../b"),
    "kernel arguments with NUL": _field("spec.image.kernel_args", "a\x00b"),
    "kernel arguments with a newline": _field("spec.image.kernel_args", "a\nb"),
    "ramdisk without a kernel": Bad(_set("spec.image.kernel_image_id", ""), ("spec.image",)),
    "root disk of exabytes": _field("spec.flavor.root_disk_gib", 2**64 - 1),
    "firmware that is none": _field("spec.machine.firmware", 99),
    "watchdog that is none": _field("spec.machine.watchdog", -1),
    "graphics that are none": _field("spec.machine.graphics", 2**31 - 1),
    "machine type with a quote": _field("spec.machine.machine_type", "q35'"),
    "metadata value with NUL": Bad(
        lambda r: r.spec.metadata.update({"key": "a\x00b"}), ('spec.metadata["key"]',)
    ),
    "metadata value of 1 MB": Bad(
        lambda r: r.spec.metadata.update({"key": "v" * MIB}), ('spec.metadata["key"]',)
    ),
    "metadata without a key": Bad(
        lambda r: r.spec.metadata.update({"": "value"}), ('spec.metadata[""]',)
    ),
    "label with a space": Bad(lambda r: r.spec.labels.update({"a b": ""}), ('spec.labels["a b"]',)),
    "label value with NUL": Bad(
        lambda r: r.spec.labels.update({"a": "\x00"}), ('spec.labels["a"]',)
    ),
    "too many labels": Bad(_many_labels, ("spec.labels",)),
    "far too many metadata": Bad(_many_metadata, ("spec.metadata",)),
    "negative allocation": Bad(
        lambda r: r.spec.allocations.update({"VCPU": -1}), ('spec.allocations["VCPU"]',)
    ),
    "interface without a port": Bad(
        _interface(port_id=""), ("spec.interfaces[0].port_id",)
    ),
    "interface without a network": Bad(
        lambda r: r.spec.interfaces.add(port_id=PORT_ID), ("spec.interfaces[0].network",)
    ),
    "multicast MAC address": Bad(
        _interface(mac_address="01:00:5e:00:00:01"), ("spec.interfaces[0].mac_address",)
    ),
    "MAC address with a newline": Bad(
        _interface(mac_address="52:54:00:00:00:01\n"), ("spec.interfaces[0].mac_address",)
    ),
    "address without a prefix": Bad(
        _interface(addresses=["192.0.2.1"]), ("spec.interfaces[0].addresses[0]",)
    ),
    "security group twice": Bad(_name_twice, ("spec.interfaces[0].security_group_ids",)),
    "device without a source": Bad(
        lambda r: r.spec.block_devices.add(), ("spec.block_devices[0].source",)
    ),
    "user data too large": _field("spec.guest.user_data", b"x" * 65536),
    "password with a newline": _field("spec.guest.admin_password", "a\nb"),
    "request_id with a space": _field("request_id", "a b"),
    "request_id with a trailing newline": _field("request_id", "a\n"),
    "request_id that is too long": _field("request_id", "r" * 129),
    "several at once": Bad(
        lambda r: (_set("spec.flavor.vcpus", 0)(r), _set("spec.name", "-")(r),
                   _set("instance_id", "x")(r)),
        ("instance_id", "spec.name", "spec.flavor.vcpus"),
    ),
}  # fmt: skip
