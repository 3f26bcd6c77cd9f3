"""Files of JSON or YAML that hold a message in protobuf JSON, field names in either case.

A file is a path, or "-" for standard input.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import yaml
from google.protobuf.json_format import ParseError


@contextmanager
def telling(file: str) -> Iterator[None]:
    """Raises click.UsageError, with the file's name, for what is wrong with it."""
    try:
        yield
    except (OSError, UnicodeDecodeError, yaml.YAMLError, ParseError) as error:
        raise click.UsageError(f"{file}: {error}") from error


def parsed(file: str) -> dict[str, Any]:
    """What is in it, as dicts, lists and scalars. To be used within `telling`."""
    text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    try:
        content = json.loads(text)
    except json.JSONDecodeError:
        content = yaml.load(text, Loader=_CoreSchemaLoader)  # noqa: S506 - a SafeLoader
    if not isinstance(content, dict):
        raise ParseError("it is no message")
    return content


class _CoreSchemaLoader(yaml.SafeLoader):
    """YAML 1.2's core schema. That of 1.1 reads the MAC 52:54:00:12:34:56 as a number."""


_CoreSchemaLoader.yaml_implicit_resolvers = {}
_CoreSchemaLoader.add_implicit_resolver(
    "tag:yaml.org,2002:null", re.compile(r"^(?:null|~|)$"), ["n", "~", ""]
)
_CoreSchemaLoader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|false)$"), ["t", "f"]
)
_CoreSchemaLoader.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile(r"^-?(?:0|[1-9][0-9]*)$"), list("-0123456789")
)
_CoreSchemaLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^-?(?:0|[1-9][0-9]*)\.[0-9]+(?:[eE][-+]?[0-9]+)?$"),
    list("-0123456789"),
)
