"""The one road of every request, bound from the descriptors.

    bytes ─▶ identity ─▶ role ─▶ capability ─▶ validation ─▶ admission
                                                                │
          reply ◀─ own verb | backend read | operation ◀────────┘

A verb is carried out by what has a method of its name in snake case: first the
daemon's own verbs (reads from the truth, operations, events, consoles), then
the backend's facets. What neither has, or the start-up probe found missing, is
answered UNIMPLEMENTED before anything else of the request is looked at.
"""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import grpc
import structlog
from google.protobuf.message import Message
from grpc_status import rpc_status

from backends.contract import Facet
from backends.errors import ContractError, TimedOutError, UnreachableError, UnsupportedError
from backends.work import Validated
from service.admission import Admission
from service.errors import RecordedError, internal_error, status_of
from service.identity import Identity
from service.metrics import RpcMetrics
from service.operations.operation import Checks
from service.operations.runner import Method, Operations
from service.validation import parse
from service.verbs import Verb
from virtrpc.v1 import types_pb2

Context = grpc.aio.ServicerContext[Any, Any]
log = structlog.get_logger()


@dataclass(frozen=True)
class Call:
    """What an own verb knows of its caller beside the request."""

    identity: Identity
    remaining_s: float | None
    """Until the caller's deadline; None: it has none."""


@dataclass(frozen=True)
class Pools:
    """Worker threads: a class of verbs never waits for another's."""

    reads: ThreadPoolExecutor
    jobs: ThreadPoolExecutor
    urgent: ThreadPoolExecutor

    @classmethod
    def make(cls) -> "Pools":
        """Pools of the usual sizes. Waiting for a guest occupies a thread of `jobs`."""
        return cls(
            ThreadPoolExecutor(8, "reads"),
            ThreadPoolExecutor(32, "jobs"),
            ThreadPoolExecutor(8, "urgent"),
        )

    def shutdown(self) -> None:
        """Takes no more work; threads that still hang in a call are left behind."""
        for pool in (self.reads, self.jobs, self.urgent):
            pool.shutdown(wait=False, cancel_futures=True)


class Bindings:
    """What carries out each verb."""

    def __init__(self, *, own: Iterable[object], facets: Iterable[Facet]) -> None:
        self._own = tuple(own)
        self._facets = tuple(facets)
        self.missing: Mapping[str, str] = {}
        """Capabilities that the start-up probe found missing, and why."""

    def own(self, verb: Verb) -> Callable[..., Any] | None:
        """The daemon's own method for a verb."""
        return _method(self._own, verb)

    def backend(self, verb: Verb) -> Callable[..., Any] | None:
        """The backend's method for a verb."""
        return _method(self._facets, verb)

    def why_missing(self, verb: Verb) -> str | None:
        """Why a verb is not supported here; None: it is."""
        if verb.capability in self.missing:
            return self.missing[verb.capability]
        if self.own(verb) is None and self.backend(verb) is None:
            return "this backend does not implement it"
        return None

    def require(self, verb: Verb) -> None:
        """Raises UnsupportedError where the verb is not supported."""
        why = self.why_missing(verb)
        if why is not None:
            raise UnsupportedError(verb.capability, why=why)


class Dispatcher:
    """Makes gRPC handlers for all verbs."""

    def __init__(
        self,
        *,
        bindings: Bindings,
        operations: Operations,
        pools: Pools,
        metrics: RpcMetrics,
        identify: Callable[[str], Identity],
        admission: Admission,
    ) -> None:
        self._bindings = bindings
        self._operations = operations
        self._pools = pools
        self._metrics = metrics
        self._identify = identify
        self._admission = admission

    def handlers(self, verbs: Iterable[Verb]) -> list[grpc.GenericRpcHandler[Any, Any]]:
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
        if verb.client_streaming and verb.server_streaming:
            return grpc.stream_stream_rpc_method_handler(self._stream_of_stream(verb))
        if verb.client_streaming:
            return grpc.stream_unary_rpc_method_handler(self._unary_of_stream(verb))
        if verb.server_streaming:
            return grpc.unary_stream_rpc_method_handler(self._stream(verb))
        return grpc.unary_unary_rpc_method_handler(self._unary(verb))

    def _unary(self, verb: Verb) -> Callable[[bytes, Context], Awaitable[bytes]]:
        carry_out = self._carrier(verb)

        async def handle(raw: bytes, context: Context) -> bytes:
            started = time.perf_counter()
            code = grpc.StatusCode.OK
            try:
                call = self._admitted(verb, context)
                request = parse(verb, raw)
                with self._admission.enter(verb):
                    reply = await carry_out(request, call)
                return reply if isinstance(reply, bytes) else reply.SerializeToString()
            except asyncio.CancelledError:
                code = grpc.StatusCode.CANCELLED
                raise
            except Exception as error:  # noqa: BLE001 - the outermost layer of a request
                code = await _refuse(context, verb, error)
                raise AssertionError("abort returned") from error
            finally:
                self._metrics.observe(verb, code, time.perf_counter() - started)

        return handle

    def _stream(self, verb: Verb) -> Callable[[bytes, Context], AsyncIterator[bytes]]:
        def open_stream(raw: bytes, call: Call) -> AsyncIterator[Message | bytes]:
            own = self._bindings.own(verb)
            assert own is not None, f"{verb.name} has no servicer"  # noqa: S101
            stream: AsyncIterator[Message | bytes] = own(parse(verb, raw), call)
            return stream

        return self._streaming(verb, open_stream)

    def _stream_of_stream(self, verb: Verb) -> Callable[[Any, Context], AsyncIterator[bytes]]:
        def open_stream(raws: AsyncIterator[bytes], call: Call) -> AsyncIterator[Message | bytes]:
            own = self._bindings.own(verb)
            assert own is not None, f"{verb.name} has no servicer"  # noqa: S101
            stream: AsyncIterator[Message | bytes] = own(_parsed(verb, raws), call)
            return stream

        return self._streaming(verb, open_stream)

    def _streaming(
        self, verb: Verb, open_stream: Callable[[Any, Call], AsyncIterator[Message | bytes]]
    ) -> Callable[[Any, Context], AsyncIterator[bytes]]:
        async def handle(incoming: Any, context: Context) -> AsyncIterator[bytes]:
            started = time.perf_counter()
            code = grpc.StatusCode.OK
            try:
                call = self._admitted(verb, context)
                with self._admission.enter(verb):
                    async for reply in open_stream(incoming, call):
                        yield reply if isinstance(reply, bytes) else reply.SerializeToString()
            except (asyncio.CancelledError, GeneratorExit):
                code = grpc.StatusCode.CANCELLED
                raise
            except Exception as error:  # noqa: BLE001 - the outermost layer of a request
                code = await _refuse(context, verb, error)
            finally:
                self._metrics.observe(verb, code, time.perf_counter() - started)

        return handle

    def _unary_of_stream(self, verb: Verb) -> Callable[[Any, Context], Awaitable[bytes]]:
        async def handle(raws: AsyncIterator[bytes], context: Context) -> bytes:
            started = time.perf_counter()
            code = grpc.StatusCode.OK
            try:
                call = self._admitted(verb, context)
                own = self._bindings.own(verb)
                assert own is not None, f"{verb.name} has no servicer"  # noqa: S101
                with self._admission.enter(verb):
                    reply: Message = await own(_parsed(verb, raws), call)
                return reply.SerializeToString()
            except asyncio.CancelledError:
                code = grpc.StatusCode.CANCELLED
                raise
            except Exception as error:  # noqa: BLE001 - the outermost layer of a request
                code = await _refuse(context, verb, error)
                raise AssertionError("abort returned") from error
            finally:
                self._metrics.observe(verb, code, time.perf_counter() - started)

        return handle

    def _admitted(self, verb: Verb, context: Context) -> Call:
        """The stations before the request itself is looked at."""
        identity = self._identify(context.peer())
        identity.require(verb)
        self._bindings.require(verb)
        return Call(identity, context.time_remaining())

    def _carrier(self, verb: Verb) -> Callable[[Message, Call], Awaitable[Message | bytes]]:
        """What carries a verb out: looked up at each call, as probing may have changed it."""

        async def carry_out(request: Message, call: Call) -> Message | bytes:
            own = self._bindings.own(verb)
            if own is not None:
                reply: Message | bytes = await own(request, call)
                return reply
            method = self._bindings.backend(verb)
            assert method is not None, f"{verb.name} is not bound"  # noqa: S101
            if verb.mutates:
                return await self._mutate(verb, request, method, call)
            loop = asyncio.get_running_loop()
            read: Message = await loop.run_in_executor(self._pools.reads, method, request)
            return read

        return carry_out

    async def _mutate(self, verb: Verb, request: Message, method: Method, call: Call) -> Message:
        if not self._operations.reachable.is_set():
            raise UnreachableError("the hypervisor is out of reach; nothing was begun")
        if getattr(request, "validate_only", False):
            return await self._check(verb, request, method, call)
        operation = await self._operations.start(verb, request, method, caller=call.identity.name)
        if verb.long_running:
            return operation
        await self._operations.outcome(operation)
        if operation.HasField("error"):
            raise RecordedError(operation.error)
        response = verb.response_class()
        operation.result.Unpack(response)
        return response

    async def _check(self, verb: Verb, request: Message, method: Method, call: Call) -> Message:
        """Only the checks; outside any lane, and not an operation."""
        work = Checks(call.identity.name)
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._pools.reads, method, request, work)
        except Validated:
            pass
        if verb.long_running:
            return _validated_operation(verb, request, call)
        return verb.response_class()


def _validated_operation(verb: Verb, request: Message, call: Call) -> Message:
    from virtrpc.v1.operation_pb2 import OPERATION_STATE_SUCCEEDED, Operation

    return Operation(
        verb=verb.name,
        instance_id=getattr(request, "instance_id", ""),
        state=OPERATION_STATE_SUCCEEDED,
        done=True,
        progress_percent=100,
        caller=call.identity.name,
    )


def _method(objects: Iterable[object], verb: Verb) -> Callable[..., Any] | None:
    for thing in objects:
        method: Callable[..., Any] | None = getattr(thing, verb.attribute, None)
        if method is not None:
            return method
    return None


async def _parsed(verb: Verb, raws: AsyncIterator[bytes]) -> AsyncIterator[Message]:
    async for raw in raws:
        yield parse(verb, raw)


async def _refuse(context: Context, verb: Verb, error: Exception) -> grpc.StatusCode:
    """Ends the call with the status of an error; of a defect the caller learns an id only."""
    if isinstance(error, (ContractError, types_pb2.Error)):
        known = error
    elif isinstance(error, TimeoutError):
        known = TimedOutError("the daemon gave up waiting")
    else:
        incident = str(uuid.uuid4())
        log.error("defect in a request", incident=incident, verb=verb.name, exc_info=error)
        known = internal_error(incident)
    status = rpc_status.to_status(status_of(known))
    await context.abort_with_status(status)
    return status.code
