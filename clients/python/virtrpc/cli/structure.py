"""Messages as plain structures: protobuf JSON with the field names of the contract."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Union

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

# What a verb gives out: a message, or one with facts of its own beside it.
Document = Union[Message, Mapping[str, Any]]


def structure(document: Document) -> dict[str, Any]:
    """The document as dicts, lists and scalars.

    As protobuf JSON has it: fields with their default value are left out,
    64-bit integers are strings, bytes are base64, enums are names.
    """
    if isinstance(document, Message):
        fields: dict[str, Any] = MessageToDict(document, preserving_proto_field_name=True)
        return fields
    return dict(document)
