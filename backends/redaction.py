"""Takes secrets out of messages by what their descriptors say, never by hand."""

from collections.abc import Iterable, Mapping
from functools import cache
from typing import TypeVar, cast

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from virtrpc.v1 import options_pb2

M = TypeVar("M", bound=Message)


def redacted(message: M) -> M:
    """A copy without the fields marked `secret`, at any depth.

    It is what journal, log and audit get to see, and what two requests are
    compared by.
    """
    copy = type(message)()
    copy.CopyFrom(message)
    _clear(copy)
    return copy


def _clear(message: Message) -> None:
    for field, value in message.ListFields():
        if _is_secret(field):
            message.ClearField(field.name)
        elif field.message_type is not None and _holds_secret(field.message_type):
            for part in _parts(value):
                _clear(part)


def _parts(value: object) -> list[Message]:
    if isinstance(value, Message):
        return [value]
    if isinstance(value, Mapping):
        return list(value.values())
    return list(cast(Iterable[Message], value))


@cache
def _is_secret(field: FieldDescriptor) -> bool:
    return field.GetOptions().Extensions[options_pb2.secret]


@cache
def _holds_secret(descriptor: Descriptor) -> bool:
    return _search(descriptor, frozenset())


def _search(descriptor: Descriptor, seen: frozenset[str]) -> bool:
    if descriptor.full_name in seen:
        return False
    seen |= {descriptor.full_name}
    return any(
        _is_secret(field) or (field.message_type is not None and _search(field.message_type, seen))
        for field in descriptor.fields
    )
