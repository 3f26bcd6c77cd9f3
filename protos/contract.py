"""The contract for those who write about it: declarations with their comments and options.

Descriptors come from protoc with their source info. Options are read by a pool
made of the same descriptors: neither the stubs nor a validator are needed.
"""

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from generate import describe
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClassesForFiles

PACKAGE = "virtrpc.v1"
# Numbers of fields in descriptor.proto, of which the paths of source info are made.
_FILE_PACKAGE = 2
_MESSAGES, _ENUMS, _SERVICES = 4, 5, 6
_PARTS, _ONEOFS = 2, 8
Path_ = tuple[int, ...]


@dataclass(frozen=True)
class Declared:
    """Something that is declared, and the comment before it."""

    proto: Any
    """Its descriptor, e.g. a FieldDescriptorProto."""
    comment: str
    parts: Sequence["Declared"] = ()
    """RPCs of a service, fields of a message, values of an enum."""
    oneofs: Sequence["Declared"] = ()

    @property
    def name(self) -> str:
        """As it is declared."""
        return str(self.proto.name)


@dataclass(frozen=True)
class ContractFile:
    """One .proto file; `name` is without folder and ending, e.g. "instance"."""

    name: str
    comment: str
    services: Sequence[Declared]
    messages: Sequence[Declared]
    enums: Sequence[Declared]


@dataclass
class Contract:
    """All files of the contract."""

    files: Sequence[ContractFile]
    options: Any
    """Classes of descriptor.proto's messages that know the extensions, by name."""
    extensions: dict[str, Any]
    homes: dict[str, str] = field(default_factory=dict)
    """The file of each message and enum."""
    rpcs: dict[str, str] = field(default_factory=dict)
    """The file of each RPC."""

    def __post_init__(self) -> None:
        for file in self.files:
            for declared in (*file.messages, *file.enums):
                self.homes[declared.name] = file.name
            for service in file.services:
                self.rpcs |= {rpc.name: file.name for rpc in service.parts}

    def declared(self, name: str) -> Declared:
        """The message or enum of that name."""
        file = next(file for file in self.files if file.name == self.homes[name])
        return next(one for one in (*file.messages, *file.enums) if one.name == name)

    def option(self, declared: Declared, extension: str) -> Any:
        """The value of an option, e.g. "buf.validate.field"; its default where it is not set."""
        given: Message = declared.proto.options
        known = self.options[given.DESCRIPTOR.full_name].FromString(given.SerializeToString())
        return known.Extensions[self.extensions[extension]]

    def word(self, enum: str, number: int) -> str:
        """A value's name without its enum's, in lower case."""
        values = self.declared(enum).proto.value
        prefix = values[0].name.removesuffix("UNSPECIFIED")
        name = next(value.name for value in values if value.number == number)
        return str(name.removeprefix(prefix).lower())


def load() -> Contract:
    """The contract as it stands in the .proto files; raises subprocess.CalledProcessError."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "contract.binpb"
        describe(path)
        descriptors = FileDescriptorSet.FromString(path.read_bytes())
    pool = DescriptorPool()
    for file in descriptors.file:
        pool.Add(file)
    own = [file for file in descriptors.file if file.package == PACKAGE]
    names = ("virtrpc.v1.verb", "virtrpc.v1.secret")
    rules = (f"buf.validate.{kind}" for kind in ("field", "message", "oneof"))
    return Contract(
        files=[_read(file) for file in own],
        options=GetMessageClassesForFiles(["google/protobuf/descriptor.proto"], pool),
        extensions={name: pool.FindExtensionByName(name) for name in (*names, *rules)},
    )


def _read(file: FileDescriptorProto) -> ContractFile:
    comments = {
        tuple(place.path): place.leading_comments for place in file.source_code_info.location
    }

    def declared(protos: Iterable[Any], path: Path_, parts: str = "") -> list[Declared]:
        return [
            Declared(
                proto,
                _flush(comments.get((*path, number), "")),
                declared(getattr(proto, parts), (*path, number, _PARTS)) if parts else (),
                declared(getattr(proto, "oneof_decl", ()), (*path, number, _ONEOFS)),
            )
            for number, proto in enumerate(protos)
        ]

    return ContractFile(
        name=Path(file.name).stem,
        comment=_flush(comments.get((_FILE_PACKAGE,), "")),
        services=declared(file.service, (_SERVICES,), "method"),
        messages=declared(file.message_type, (_MESSAGES,), "field"),
        enums=declared(file.enum_type, (_ENUMS,), "value"),
    )


def _flush(comment: str) -> str:
    """The comment without the space that follows each //."""
    return "\n".join(line.removeprefix(" ") for line in comment.rstrip().splitlines())
