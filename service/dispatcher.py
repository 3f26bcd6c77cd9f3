"""The one road of every request, bound from the descriptors.

    bytes ─▶ identity ─▶ role ─▶ capability ─▶ validation ─▶ admission
                                                                │
          reply ◀─ own verb | backend read | operation ◀────────┘

A verb is carried out by what has a method of its name in snake case: first the
daemon's own verbs (reads from the truth, operations, events, consoles), then
the backend's facets. What neither has, or the start-up probe found missing, is
answered UNIMPLEMENTED before anything else of the request is looked at.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import grpc
import structlog
from google.protobuf.message import Message
from grpc_status import rpc_status
from virtrpc.v1.operation_pb2 import OPERATION_STATE_SUCCEEDED, Operation

from backends.errors import ContractError, InstanceNotFoundError
from service import audit
from service.admission import Admission
from service.bindings import Bindings
from service.consoles.moves import Moves
from service.errors import internal_error, status_of
from service.identity import Gate, Identity
from service.metrics import RpcMetrics
from service.operations.execution import Method
from service.operations.operation import checked
from service.operations.runner import Operations
from service.pools import Pools
from service.validation import parse
from service.verbs import Verb

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]
Reply = Message | bytes
log = structlog.get_logger()


@dataclass(frozen=True)
class Call:
    """What an own verb knows of its caller beside the request."""

    identity: Identity
    remaining_s: float | None
    """Until the caller's deadline; None: it has none."""
    still_there: Callable[[], Awaitable[bool]]
    """Whether the caller waits for an answer. The end of what it sends does not tell: that
    of a stream that broke off looks the same. To be asked once."""


class Dispatcher:
    """Makes gRPC handlers for all verbs."""

    def __init__(
        self,
        *,
        bindings: Bindings,
        operations: Operations,
        pools: Pools,
        metrics: RpcMetrics,
        gate: Gate,
        admission: Admission,
        moves: Moves,
    ) -> None:
        self._bindings = bindings
        self._operations = operations
        self._pools = pools
        self._metrics = metrics
        self._gate = gate
        self._admission = admission
        self._moves = moves

    def handlers(self, verbs: Iterable[Verb]) -> list[grpc.GenericRpcHandler]:
        """Handlers to add to a server, one for each service."""
        by_service: dict[str, dict[str, grpc.RpcMethodHandler[Any, Any]]] = {}
        for verb in verbs:
            by_service.setdefault(verb.service, {})[verb.name] = self._handler(verb)
        return [
            grpc.method_handlers_generic_handler(service, handlers)
            for service, handlers in by_service.items()
        ]

    def _handler(self, verb: Verb) -> grpc.RpcMethodHandler[Any, Any]:
        """Requests come as bytes, so that a caller who is denied costs no parsing."""
        if verb.server_streaming:
            stream = self._streaming(verb)
            if verb.client_streaming:
                return grpc.stream_stream_rpc_method_handler(stream)
            return grpc.unary_stream_rpc_method_handler(stream)
        if verb.client_streaming:
            return grpc.stream_unary_rpc_method_handler(self._replying(verb))
        return grpc.unary_unary_rpc_method_handler(self._replying(verb))

    def _replying(self, verb: Verb) -> Callable[..., Any]:
        async def handle(incoming: Any, context: Context) -> bytes:
            async with self._answering(verb, context):
                call = self._admitted(verb, context)
                request = _request(verb, incoming, call.identity)
                with self._admission.enter(verb):
                    return _serialised(await self._carry_out(verb, request, call))
            raise AssertionError("unreachable: an error has ended the call")

        return handle

    def _streaming(self, verb: Verb) -> Callable[..., Any]:
        async def handle(incoming: Any, context: Context) -> AsyncIterator[bytes]:
            async with self._answering(verb, context):
                call = self._admitted(verb, context)
                request = _request(verb, incoming, call.identity)
                with self._admission.enter(verb):
                    async with aclosing(self._own(verb)(request, call)) as replies:
                        async for reply in replies:
                            yield _serialised(reply)

        return handle

    @asynccontextmanager
    async def _answering(self, verb: Verb, context: Context) -> AsyncIterator[None]:
        """Turns whatever goes wrong inside into a status, and counts the call."""
        started = time.perf_counter()
        code = grpc.StatusCode.OK
        try:
            yield
        except (asyncio.CancelledError, GeneratorExit):
            code = grpc.StatusCode.CANCELLED
            raise
        except Exception as error:  # noqa: BLE001 - the outermost layer of a request
            told = _told(verb, error)
            status = rpc_status.to_status(status_of(told, self._facts(told)))
            code = status.code
            await context.abort_with_status(status)
        finally:
            self._metrics.observe(verb, code, time.perf_counter() - started)

    def _facts(self, error: ContractError) -> Mapping[str, str]:
        """What is known here of an error beside what it says: where a missing instance went."""
        if error.reason != InstanceNotFoundError.reason:
            return {}
        moved = self._moves.of(error.metadata.get("instance_id", ""))
        return {} if moved is None else {"host_uri": moved.host_uri}

    def _admitted(self, verb: Verb, context: Context) -> Call:
        """The stations before the request itself is looked at."""
        identity = self._gate.admit(context, role=verb.role, call=verb.name)
        self._bindings.require(verb)
        return Call(identity, context.time_remaining(), partial(_still_there, context))

    def _own(self, verb: Verb) -> Callable[..., Any]:
        own = self._bindings.own(verb)
        assert own is not None, f"no servicer for the stream {verb.name}"  # noqa: S101
        return own

    async def _carry_out(self, verb: Verb, request: Any, call: Call) -> Reply:
        own = self._bindings.own(verb)
        if own is not None:
            return cast(Reply, await own(request, call))
        method = self._bindings.backend(verb)
        assert method is not None, f"{verb.name} is not bound"  # noqa: S101
        if verb.mutates:
            return await self._mutate(verb, request, method, call)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pools.reads, method, request)

    async def _mutate(self, verb: Verb, request: Message, method: Method, call: Call) -> Message:
        self._operations.require_open()
        if getattr(request, "validate_only", False):
            return await self._check(verb, request, method, call)
        operation = await self._operations.start(verb, request, method, caller=call.identity.name)
        if verb.long_running:
            return operation
        return await self._operations.response(operation, verb.response_class)

    async def _check(self, verb: Verb, request: Message, method: Method, call: Call) -> Message:
        """Only the checks; outside any lane, and not an operation."""
        loop = asyncio.get_running_loop()
        reply = await loop.run_in_executor(
            self._pools.reads,
            checked,
            method,
            request,
            call.identity.name,
            partial(self._operations.keeps_out, verb, request),
        )
        if not verb.long_running:
            return reply or verb.response_class()
        return Operation(
            verb=verb.name,
            instance_id=getattr(request, "instance_id", ""),
            state=OPERATION_STATE_SUCCEEDED,
            done=True,
            progress_percent=100,
            caller=call.identity.name,
        )


def _request(verb: Verb, incoming: Any, caller: Identity) -> Any:
    """The parsed request, or a stream of parsed ones; the first is audited."""
    if not verb.client_streaming:
        request = parse(verb, incoming)
        audit.called(verb, request, caller)
        return request

    async def parsed() -> AsyncIterator[Message]:
        is_first = True
        async for raw in incoming:
            request = parse(verb, raw)
            if is_first:
                audit.called(verb, request, caller)
            is_first = False
            yield request

    return parsed()


async def _still_there(context: Context) -> bool:
    """Begins the answer, which fails where the stream has been reset or its connection lost."""
    try:
        await context.send_initial_metadata(())
    except (grpc.RpcError, grpc.aio.BaseError):
        return False
    return not context.cancelled()


def _serialised(reply: Reply) -> bytes:
    return reply if isinstance(reply, bytes) else reply.SerializeToString()


def _told(verb: Verb, error: Exception) -> ContractError:
    """What the caller is told of an error: of a defect an id, the rest is in the log."""
    if isinstance(error, ContractError):
        return error
    incident = str(uuid.uuid4())
    log.error("defect in a request", incident=incident, verb=verb.name, exc_info=error)
    return internal_error(incident)
