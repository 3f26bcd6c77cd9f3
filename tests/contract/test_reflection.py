"""A controller needs no .proto file: reflection shows the whole contract."""

import grpc
import pytest
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.descriptor_pb2 import MethodOptions
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from virtrpc.v1 import options_pb2

from service.verbs import Verb, all_verbs, service_names
from tests.contract.driver_methods import DRIVER_METHODS
from tests.daemon import Connection

SERVING = health_pb2.HealthCheckResponse.SERVING


def reflected(connection: Connection, service: str) -> ServiceDescriptor:
    pool = DescriptorPool(ProtoReflectionDescriptorDatabase(connection.channel))
    return pool.FindServiceByName(service)


def verbs_of(service: str) -> list[Verb]:
    return [verb for verb in all_verbs().values() if verb.service == service]


def test_reflection_lists_every_service(connection: Connection) -> None:
    listed = set(ProtoReflectionDescriptorDatabase(connection.channel).get_services())
    assert listed >= {f"virtrpc.v1.{service}" for service in DRIVER_METHODS}
    assert {"grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"} <= listed


@pytest.mark.parametrize("service", service_names())
def test_reflection_lists_every_rpc_of_a_service(connection: Connection, service: str) -> None:
    methods = reflected(connection, service).methods_by_name
    assert sorted(methods) == sorted(verb.name for verb in verbs_of(service))


@pytest.mark.parametrize("service", service_names())
def test_reflection_tells_types_and_options_of_every_rpc(
    connection: Connection, service: str
) -> None:
    methods = reflected(connection, service).methods_by_name
    for verb in verbs_of(service):
        method = methods[verb.name]
        assert method.input_type.full_name == verb.request_class.DESCRIPTOR.full_name
        assert method.output_type.full_name == verb.response_class.DESCRIPTOR.full_name
        assert method.server_streaming == verb.server_streaming
        assert method.client_streaming == verb.client_streaming
        # In another pool the extension is an unknown field: parsed again, it is known.
        options = MethodOptions.FromString(method.GetOptions().SerializeToString())
        assert options.Extensions[options_pb2.verb] == verb.options


def test_reflection_of_an_unknown_service_is_not_found(connection: Connection) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(connection.channel)
    request = reflection_pb2.ServerReflectionRequest(file_containing_symbol="virtrpc.v1.Nothing")
    (reply,) = stub.ServerReflectionInfo(iter([request]), timeout=10)
    assert reply.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]


@pytest.mark.parametrize("service", ["", *service_names()])
def test_health_of_every_service_is_serving(connection: Connection, service: str) -> None:
    stub = health_pb2_grpc.HealthStub(connection.channel)
    request = health_pb2.HealthCheckRequest(service=service)
    assert stub.Check(request, timeout=10).status == SERVING


def test_health_of_an_unknown_service_is_not_found(connection: Connection) -> None:
    stub = health_pb2_grpc.HealthStub(connection.channel)
    with pytest.raises(grpc.RpcError) as caught:
        stub.Check(health_pb2.HealthCheckRequest(service="virtrpc.v1.Nothing"), timeout=10)
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND
