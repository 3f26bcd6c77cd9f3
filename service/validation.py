"""Bytes from the wire → a request that keeps the rules of its .proto, or a refusal with paths."""

import json
from collections.abc import Iterable
from typing import Any, cast

import protovalidate
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message

from backends.errors import BlockedError, InvalidArgumentError
from service.verbs import Verb

_validator = protovalidate.Validator()
MOST_ELEMENTS = 20_000
"""Of all lists and maps of a request together; the longest that a rule allows has 16,384."""
_ALL_TOLD_ELEMENTS = 1_000
_TOLD = 32


def parse(verb: Verb, raw: bytes) -> Message:
    """Parses and checks a request; UUIDs come out in lower case.

    Raises InvalidArgumentError, or BlockedError with one for every field at fault.
    """
    try:
        request = verb.request_class.FromString(raw)
    except DecodeError as error:
        raise InvalidArgumentError(f"not a {verb.name} request: malformed Protobuf") from error
    check(request)
    _canonicalise(request)
    return request


def check(message: Message) -> None:
    """Holds a message against its rules; raises like `parse`.

    Telling a fault takes thousands of times longer than parsing what has it: of a large
    message only the first is told, so that no request holds up the others.
    """
    large = _elements(message) > _ALL_TOLD_ELEMENTS
    violations = _validator.collect_violations(message, fail_fast=large)
    if not violations:
        return
    faults = [_fault(path(v.proto.field), v.proto.message) for v in violations[:_TOLD]]
    raise faults[0] if len(faults) == 1 else InvalidFieldsError(faults)


def _elements(message: Message, where: str = "") -> int:
    """How many elements its lists and maps have; raises InvalidArgumentError where too many."""
    total = 0
    for field, value in message.ListFields():
        inner = f"{where}{field.name}"
        if field.is_repeated:
            total += len(value)
        for nested in _messages(field, value) if total <= MOST_ELEMENTS else ():
            total += _elements(nested, f"{inner}.")
            if total > MOST_ELEMENTS:
                break
        if total > MOST_ELEMENTS:
            raise _fault(inner, f"the request has more than {MOST_ELEMENTS} elements")
    return total


def _messages(field: FieldDescriptor, value: Any) -> Iterable[Message]:
    """The messages in a field."""
    kind = field.message_type
    if kind is None:
        return ()
    if not field.is_repeated:
        return (value,)
    if not kind.GetOptions().map_entry:
        return cast(Iterable[Message], value)
    return value.values() if kind.fields_by_name["value"].message_type else ()


def _fault(where: str, what: str) -> InvalidArgumentError:
    """A rule that was broken; `where` is empty for one of the request as a whole."""
    return InvalidArgumentError(f"{where}: {what}" if where else what, field=where)


class InvalidFieldsError(BlockedError):
    """Several fields at fault; each with its path."""

    reason = "INVALID_REQUEST"


def path(field: object) -> str:
    """A protovalidate FieldPath as text, e.g. `spec.interfaces[0].mac_address`."""
    text = ""
    for element in getattr(field, "elements", ()):
        text += ("." if text else "") + element.field_name
        if element.subscript is not None:
            value = element.subscript.value
            text += f"[{json.dumps(value)}]"
    return text


def _canonicalise(request: Message) -> None:
    for name in ("instance_id", "aggregate_id"):
        value = getattr(request, name, "")
        if value != value.lower():
            setattr(request, name, value.lower())
