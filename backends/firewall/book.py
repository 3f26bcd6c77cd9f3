"""What the host was told about filtering, in small files that outlive the daemon and the host.

    groups/GROUP.json          a security group, as it was given last
    instances/INSTANCE.json    interfaces that are filtered, with their MAC addresses

The kernel's rules are made from this and from nothing else.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import structlog
from google.protobuf import json_format
from google.protobuf.message import Message
from virtrpc.v1.firewall_pb2 import EnsureFilteringRulesRequest, SecurityGroup
from virtrpc.v1.spec_pb2 import InterfaceSpec

from backends.durable_files import write_durably

M = TypeVar("M", bound=Message)
log = structlog.get_logger()


class FilterBook:
    """Groups and filtered interfaces. Its owner sees to it that one changes it at a time."""

    def __init__(self, folder: Path) -> None:
        self._groups_folder, self._instances_folder = folder / "groups", folder / "instances"
        self._groups: dict[str, SecurityGroup] = {}
        self._interfaces: dict[str, tuple[InterfaceSpec, ...]] = {}

    def load(self) -> None:
        """Reads what an earlier run of the daemon has kept."""
        self._groups.clear()
        self._interfaces.clear()
        for folder in (self._groups_folder, self._instances_folder):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for group in _read(self._groups_folder, SecurityGroup):
            self._groups[group.security_group_id] = group
        for kept in _read(self._instances_folder, EnsureFilteringRulesRequest):
            self._interfaces[kept.instance_id] = tuple(kept.interfaces)

    @property
    def groups(self) -> Mapping[str, SecurityGroup]:
        """All groups by their ids."""
        return self._groups

    @property
    def interfaces(self) -> Mapping[str, Sequence[InterfaceSpec]]:
        """Filtered interfaces by the ids of their instances."""
        return self._interfaces

    def keep_group(self, group: SecurityGroup) -> None:
        """Takes a group in place of the one of its id; raises OSError."""
        group_id = group.security_group_id
        self._write(self._groups_folder / f"{group_id}.json", group)
        self._groups[group_id] = group

    def forget_group(self, group_id: str) -> None:
        """Knows nothing of a group any more."""
        self._groups.pop(group_id, None)
        (self._groups_folder / f"{group_id}.json").unlink(missing_ok=True)

    def keep_interfaces(self, instance_id: str, interfaces: Sequence[InterfaceSpec]) -> None:
        """Takes an instance's interfaces in place of those kept; none: forgets it."""
        path = self._instances_folder / f"{instance_id}.json"
        if interfaces:
            kept = EnsureFilteringRulesRequest(instance_id=instance_id, interfaces=interfaces)
            self._write(path, kept)
            self._interfaces[instance_id] = tuple(interfaces)
        else:
            self._interfaces.pop(instance_id, None)
            path.unlink(missing_ok=True)

    def _write(self, path: Path, message: Message) -> None:
        write_durably(path, json_format.MessageToJson(message))


def _read(folder: Path, kind: type[M]) -> Iterator[M]:
    for path in sorted(folder.glob("*.json")):
        try:
            text = path.read_text(encoding="utf-8")
            yield json_format.Parse(text, kind(), ignore_unknown_fields=True)
        except (OSError, json_format.ParseError, UnicodeDecodeError) as error:
            log.error("what is kept about filtering cannot be read", path=str(path), why=str(error))
