"""Bytes from the wire → a request that keeps the rules of its .proto, or a refusal with paths."""

import json

import protovalidate
from google.protobuf.message import DecodeError, Message

from backends.errors import BlockedError, InvalidArgumentError
from service.verbs import Verb

_validator = protovalidate.Validator()


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
    """Holds a message against its rules; raises like `parse`."""
    violations = _validator.collect_violations(message)
    if not violations:
        return
    faults = [_fault(path(v.proto.field), v.proto.message) for v in violations[:32]]
    raise faults[0] if len(faults) == 1 else InvalidFieldsError(faults)


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
