"""Requests made from their descriptors: any value a field can hold, likely ones more often."""

import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import strategies as st

INSTANCE_IDS = tuple(str(uuid.UUID(int=number, version=4)) for number in range(1, 5))
MAX_DEPTH = 5
MAX_ITEMS = 3

_TEXTS = st.one_of(
    st.sampled_from(INSTANCE_IDS),
    st.sampled_from(
        ["", "a", "name-1", "guest", "ramdisk", "-rf", "../../etc/passwd", "/", "nul\0l", "a'\"<&>",
         "\u202e", "é" * 70, "x" * 5000, "52:54:00:00:00:01", "10.0.0.1", "::1/64", "vda",
         "file:///etc/passwd", "nbd://h/x", "2026-11-21", "0" * 64, "[", "%s%n", "\ud7ff\ufffe"]
    ),
    st.text(max_size=20),
)  # fmt: skip
_BYTES = st.one_of(st.binary(max_size=64), st.just(b"\0" * 70_000))
# Durations and sizes: what is long or large enough to matter, but not what waits for hours.
_INTEGERS: Mapping[int, tuple[int, int]] = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}
_SCALARS: Mapping[int, st.SearchStrategy[Any]] = {
    FieldDescriptor.CPPTYPE_BOOL: st.booleans(),
    FieldDescriptor.CPPTYPE_FLOAT: st.floats(width=32),
    FieldDescriptor.CPPTYPE_DOUBLE: st.floats(),
    # An open enum: an unknown number is a value that a newer client may send.
    FieldDescriptor.CPPTYPE_ENUM: st.one_of(st.integers(0, 8), st.sampled_from([-1, 2**31 - 1])),
}


@st.composite
def requests(draw: Callable[[Any], Any], message_class: type[Message]) -> Message:
    """Any message of a type; unset fields are as likely as set ones."""
    made = message_class()
    _fill(draw, made, depth=0)
    return made


def _fill(draw: Callable[[Any], Any], message: Message, *, depth: int) -> None:
    for field in _chosen(draw, cast("Iterable[FieldDescriptor]", message.DESCRIPTOR.fields)):
        if field.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE and depth >= MAX_DEPTH:
            continue
        if _is_map(field):
            _fill_map(draw, message, field, depth=depth)
        elif field.is_repeated:
            values = [
                _value(draw, field, depth=depth) for _ in range(draw(st.integers(0, MAX_ITEMS)))
            ]
            getattr(message, field.name).extend(values)
        elif field.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE:
            getattr(message, field.name).CopyFrom(_value(draw, field, depth=depth))
        else:
            setattr(message, field.name, _value(draw, field, depth=depth))


def _chosen(draw: Callable[[Any], Any], fields: Iterable[FieldDescriptor]) -> list[FieldDescriptor]:
    """An instance is nearly always named: most requests are of no interest without."""
    return [
        field
        for field in fields
        if draw(st.integers(0, 9)) < (9 if field.name.endswith("_id") else 5)
    ]


def _fill_map(
    draw: Callable[[Any], Any], message: Message, field: FieldDescriptor, *, depth: int
) -> None:
    entry = cast("Descriptor", field.message_type)
    key, value = entry.fields_by_name["key"], entry.fields_by_name["value"]
    for _ in range(draw(st.integers(0, MAX_ITEMS))):
        of_key = _value(draw, key, depth=depth)
        if value.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE:
            getattr(message, field.name)[of_key].CopyFrom(_value(draw, value, depth=depth))
        else:
            getattr(message, field.name)[of_key] = _value(draw, value, depth=depth)


def _value(draw: Callable[[Any], Any], field: FieldDescriptor, *, depth: int) -> Any:
    if field.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE:
        return _message(draw, cast("Descriptor", field.message_type), depth=depth + 1)
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        is_bytes = field.type == FieldDescriptor.TYPE_BYTES
        return draw(_BYTES if is_bytes else _TEXTS)
    if field.cpp_type in _INTEGERS:
        low, high = _INTEGERS[field.cpp_type]
        near = st.integers(max(low, -1), 4)
        return draw(st.one_of(near, st.sampled_from([low, high, 96, 512]), st.integers(low, high)))
    return draw(_SCALARS[field.cpp_type])


def _message(draw: Callable[[Any], Any], descriptor: Descriptor, *, depth: int) -> Message:
    made = GetMessageClass(descriptor)()
    _fill(draw, made, depth=depth)
    return made


def _is_map(field: FieldDescriptor) -> bool:
    entry = field.message_type
    return entry is not None and entry.GetOptions().map_entry
