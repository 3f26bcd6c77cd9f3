"""Validation rules of fields in people's words, from buf.validate's messages."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from google.protobuf.message import Message

EnumNames = Callable[[int], str]
# Of strings, bytes, lists and maps. What is not here is told by its own name.
_WORDS: Mapping[str, str] = {
    "uuid": "a UUID",
    "address": "an IP address or a host name",
    "hostname": "a host name",
    "ip": "an IP address",
    "ipv4": "an IPv4 address",
    "ipv6": "an IPv6 address",
    "ip_prefix": "a network in CIDR notation",
    "uri": "a URI",
    "unique": "none twice",
    "min_len": "at least {}",
    "max_len": "at most {}",
    "len": "exactly {}",
    "min_bytes": "at least {} bytes",
    "max_bytes": "at most {} bytes",
    "min_items": "at least {}",
    "max_items": "at most {}",
    "min_pairs": "at least {}",
    "max_pairs": "at most {}",
    "gte": "at least {}",
    "gt": "more than {}",
    "lte": "at most {}",
    "lt": "less than {}",
    "const": "only {}",
    "pattern": "matches `{}`",
    "prefix": "begins with `{}`",
}
_NOT_EMPTY = ("min_len", "min_items", "min_pairs")
_LENGTHS = {"string": " characters", "bytes": " bytes"}
_IGNORED_WHEN_EMPTY = 1


def in_words(rules: Message, enum_name: EnumNames) -> str:
    """The rules of a field, e.g. "required; at most 36 bytes"; empty without any."""
    words = list(_field(rules, enum_name))
    return "; ".join(words)


def _field(rules: Any, enum_name: EnumNames) -> Iterator[str]:
    if rules.required:
        yield "required"
    kind = rules.WhichOneof("type")
    if kind:
        yield from _typed(kind, getattr(rules, kind), enum_name)
    yield from (rule.message for rule in rules.cel)
    if rules.ignore == _IGNORED_WHEN_EMPTY:
        yield "or empty"


def _typed(kind: str, rules: Message, enum_name: EnumNames) -> Iterator[str]:
    for descriptor, value in rules.ListFields():
        name = descriptor.name
        if name in ("items", "keys", "values"):
            below = in_words(value, enum_name)
            yield f"{'each' if name == 'items' else name}: {below}"
        elif kind == "enum":
            yield from _enum(name, value, enum_name)
        elif name in ("in", "not_in"):
            listed = ", ".join(f"`{_value(item)}`" for item in value)
            yield f"one of {listed}" if name == "in" else f"not {listed}"
        elif value == 1 and name in _NOT_EMPTY:
            yield "not empty"
        elif value is not False:
            yield _WORDS.get(name, f"{name} {{}}").format(_value(value)) + _unit(kind, name)


def _enum(name: str, value: Any, enum_name: EnumNames) -> Iterator[str]:
    if name == "in":
        yield "one of " + ", ".join(f"`{enum_name(number)}`" for number in value)
    elif name == "not_in":
        yield "not " + ", ".join(f"`{enum_name(number)}`" for number in value)
    # defined_only goes without saying


def _unit(kind: str, name: str) -> str:
    return _LENGTHS.get(kind, "") if name in ("min_len", "max_len", "len") else ""


def _value(value: Any) -> str:
    """Durations in seconds; bytes of a pattern and the like as they are."""
    if isinstance(value, Message):
        return f"{value.seconds + value.nanos / 1e9:g} s"  # type: ignore[attr-defined]
    return str(value)
