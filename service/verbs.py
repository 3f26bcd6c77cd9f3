"""Verbs of the contract as the descriptors declare them (protos/virtrpc/v1/options.proto)."""

import importlib
import pkgutil
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import virtrpc.v1
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import Descriptor, FileDescriptor, MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from virtrpc.v1 import options_pb2
from virtrpc.v1.options_pb2 import Recovery, Role, VerbKind

HOST_LANE = "host"


@dataclass(frozen=True)
class Verb:
    """One RPC: its names, types and declared behaviour."""

    name: str
    service: str
    options: options_pb2.VerbOptions
    request_class: type[Message]
    response_class: type[Message]
    client_streaming: bool
    server_streaming: bool

    @cached_property
    def path(self) -> str:
        """Path on the wire, e.g. "/virtrpc.v1.InstanceService/GetInstance"."""
        return f"/{self.service}/{self.name}"

    @cached_property
    def attribute(self) -> str:
        """Name of the method that implements it, e.g. "get_instance"."""
        return snake_case(self.name)

    @cached_property
    def capability(self) -> str:
        """Name under which GetCapabilities reports it."""
        return self.options.capability or self.attribute

    @property
    def kind(self) -> "VerbKind.ValueType":
        """How it behaves towards its caller."""
        return self.options.kind

    @cached_property
    def kind_name(self) -> str:
        """The kind in words, e.g. "LONG_RUNNING"."""
        return VerbKind.Name(self.kind).removeprefix("VERB_KIND_")

    @property
    def role(self) -> "Role.ValueType":
        """The least role that may call it."""
        return self.options.role

    @property
    def mutates(self) -> bool:
        """It is an operation underneath."""
        return self.kind in (options_pb2.VERB_KIND_MUTATION, options_pb2.VERB_KIND_LONG_RUNNING)

    @property
    def long_running(self) -> bool:
        """It replies with its Operation at once."""
        return self.kind == options_pb2.VERB_KIND_LONG_RUNNING

    @property
    def resumes(self) -> bool:
        """After the daemon's death it is run again, not rolled back."""
        return self.options.recovery == Recovery.RECOVERY_RESUME

    def brings_instance(self, request: Message) -> bool:
        """A call that a host which is disabled refuses."""
        condition = self.options.brings_instance_if
        return self.options.brings_instance or bool(condition and getattr(request, condition))

    def lane(self, request: Message) -> str:
        """Key of the lane in which it excludes other mutations; empty: none."""
        if self.options.concurrent:
            return ""
        field = self.options.lane or "instance_id"
        if field not in self.request_class.DESCRIPTOR.fields_by_name:
            return HOST_LANE
        value = str(getattr(request, field))
        return value if field == "instance_id" else f"{field}:{value}"


def snake_case(name: str) -> str:
    """ "GetVMInfo" → "get_vm_info"."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def _verb(method: MethodDescriptor) -> Verb:
    return Verb(
        name=method.name,
        service=method.containing_service.full_name,
        options=method.GetOptions().Extensions[options_pb2.verb],
        request_class=_message_class(method.input_type),
        response_class=_message_class(method.output_type),
        client_streaming=method.client_streaming,
        server_streaming=method.server_streaming,
    )


def _message_class(descriptor: Descriptor) -> type[Message]:
    return GetMessageClass(descriptor)


def _files() -> Iterator[FileDescriptor]:
    for module in pkgutil.iter_modules(virtrpc.v1.__path__, "virtrpc.v1."):
        if module.name.endswith("_pb2"):
            yield importlib.import_module(module.name).DESCRIPTOR


def service_names() -> list[str]:
    """Full names of all services of the contract."""
    return sorted(
        service.full_name for file in _files() for service in file.services_by_name.values()
    )


def all_verbs() -> Mapping[str, Verb]:
    """Every verb of the contract by its path on the wire."""
    verbs = {}
    for name in service_names():
        for method in descriptor_pool.Default().FindServiceByName(name).methods:
            verb = _verb(method)
            verbs[verb.path] = verb
    return verbs


def host_verb_names() -> frozenset[str]:
    """Verbs that change the host as a whole, and so exclude each other."""
    return frozenset(
        verb.name
        for verb in all_verbs().values()
        if verb.mutates and verb.lane(verb.request_class()) == HOST_LANE
    )
