"""Specifications whose secrets are canaries: words that must be found nowhere."""

import base64
from collections.abc import Iterator

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from virtrpc.v1 import options_pb2
from virtrpc.v1.spec_pb2 import InstanceSpec

_SOURCES_WITH_SECRETS = ("iscsi", "rbd")


def specifications_with_secrets() -> list[tuple[InstanceSpec, list[str]]]:
    """Specifications that have together every secret there can be, each with its canaries.

    It takes several: a volume has one source only.
    """
    made = []
    for source in _SOURCES_WITH_SECRETS:
        spec = InstanceSpec()
        list(_fill(spec))
        getattr(spec.block_devices[0].volume, source).SetInParent()
        made.append((spec, list(_fill(spec))))
    return made


def forms_of(canary: str) -> tuple[str, ...]:
    """The canary as it is, and as it would be hidden in base64 or hexadecimal digits."""
    raw = canary.encode("ascii")
    return (canary, base64.b64encode(raw[: len(raw) // 3 * 3]).decode("ascii"), raw.hex())


def _fill(message: Message, seen: tuple[object, ...] = ()) -> Iterator[str]:
    """Puts a canary into every secret of a message, at any depth; gives them.

    Of alternatives that exclude each other the one that is set is kept.
    """
    for field in message.DESCRIPTOR.fields:
        oneof = field.containing_oneof
        if oneof is not None and message.WhichOneof(oneof.name) not in (None, field.name):
            continue
        if field.GetOptions().Extensions[options_pb2.secret]:
            canary = f"canary.{field.full_name}"
            is_text = field.type == FieldDescriptor.TYPE_STRING
            setattr(message, field.name, canary if is_text else canary.encode("ascii"))
            yield canary
        elif field.message_type is not None and field.message_type not in seen:
            yield from _fill_part(message, field.name, (*seen, field.message_type))


def _fill_part(message: Message, name: str, seen: tuple[object, ...]) -> Iterator[str]:
    part = getattr(message, name)
    if isinstance(part, Message):
        part.SetInParent()
        yield from _fill(part, seen)
    elif hasattr(part, "add"):
        yield from _fill(part[0] if part else part.add(), seen)
