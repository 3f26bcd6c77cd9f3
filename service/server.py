"""The gRPC server: every verb behind the dispatcher, and reflection."""

import grpc
from grpc_reflection.v1alpha import reflection
from prometheus_client import CollectorRegistry

from service.admission import Admission
from service.bound_verbs import BoundVerbs
from service.consoles.moves import Moves
from service.core import Core
from service.dispatcher import Dispatcher
from service.guard import Guard
from service.identity import Gate
from service.metrics import RpcMetrics
from service.tls import connection_age
from service.verbs import service_names

_OPTIONS = (
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", 16 * 1024 * 1024),
    ("grpc.server_handshake_timeout_ms", 10_000),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # Beyond these gRPC refuses calls by itself, as CANCELLED: ours to refuse, by Admission.
    ("grpc.server.max_pending_requests", 100_000),
    ("grpc.server.max_pending_requests_hard_limit", 100_000),
)


def make_server(core: Core, bound: BoundVerbs, registry: CollectorRegistry) -> grpc.aio.Server:
    """A server that is bound to no address yet."""
    settings = core.settings
    gate = Gate(settings.roles, insecure=settings.insecure)
    server = grpc.aio.server(
        interceptors=(Guard(gate, bound.by_path),),
        options=(*_OPTIONS, *connection_age(settings)),
    )
    dispatcher = Dispatcher(
        bindings=bound.bindings,
        operations=core.operations,
        pools=core.pools,
        metrics=RpcMetrics(registry),
        gate=gate,
        admission=Admission(),
        moves=Moves(core.backend.migrations),
    )
    server.add_generic_rpc_handlers(tuple(dispatcher.handlers(bound.by_path.values())))
    names = (*service_names(), "grpc.health.v1.Health", reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server)
    return server
