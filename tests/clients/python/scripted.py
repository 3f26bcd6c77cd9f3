"""A daemon that answers as a test says: one function for each RPC, every request kept.

    daemon.answer("GetInstance", lambda request: GetInstanceResponse(...))
    daemon.answer("WatchEvents", first_connection, second_connection)

Answers of one RPC are used in turn, the last one for all further calls. The
answer of a stream is a (possibly async) generator function; that to a stream is given all
of its messages as a list. An answer refuses by raising `refusal(...)`.
"""

import inspect
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import grpc.aio
from google.protobuf import message_factory
from google.protobuf.any_pb2 import Any as Packed
from google.protobuf.descriptor_pool import Default
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

Answer = Callable[[Any], Any]


class RefusalError(Exception):
    """What an RPC ends with instead of a response."""

    def __init__(self, status: status_pb2.Status) -> None:
        super().__init__(status.message)
        self.status = status


def refusal(
    code: grpc.StatusCode,
    message: str = "refused",
    *,
    reason: str = "",
    metadata: dict[str, str] | None = None,
    details: tuple[Message, ...] = (),
    retry_after_s: float | None = None,
) -> RefusalError:
    """A status with its details; without a reason it has no ErrorInfo."""
    found = list(details)
    if reason:
        info = error_details_pb2.ErrorInfo(
            reason=reason, domain="virtrpc.dev", metadata=metadata or {}
        )
        found.insert(0, info)
    if retry_after_s is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromNanoseconds(int(retry_after_s * 1e9))
        found.append(retry)
    packed = [Packed() for _ in found]
    for box, detail in zip(packed, found, strict=True):
        box.Pack(detail)
    return RefusalError(status_pb2.Status(code=code.value[0], message=message, details=packed))


class ScriptedDaemon(grpc.GenericRpcHandler):
    """Serves the answers; `requests` has what came, by RPC."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.requests: dict[str, list[Any]] = defaultdict(list)
        self.deadlines_s: dict[str, list[float | None]] = defaultdict(list)
        self._answers: dict[str, list[Answer]] = {}

    def answer(self, rpc: str, *answers: Answer) -> None:
        """Answers calls of an RPC in turn, the last one for ever."""
        self._answers[rpc] = list(answers)

    def service(self, handler_call_details: Any) -> "grpc.RpcMethodHandler[Any, Any] | None":
        """The handler of an RPC; without an answer it is UNIMPLEMENTED."""
        service, _, rpc = handler_call_details.method.lstrip("/").partition("/")
        if rpc not in self._answers:
            return None
        method = Default().FindServiceByName(service).FindMethodByName(rpc)
        request_class = message_factory.GetMessageClass(method.input_type)
        if method.client_streaming:
            make, handle = grpc.stream_unary_rpc_method_handler, self._collecting(rpc)
        elif method.server_streaming:
            make, handle = grpc.unary_stream_rpc_method_handler, self._streaming(rpc)
        else:
            make, handle = grpc.unary_unary_rpc_method_handler, self._unary(rpc)
        handler: grpc.RpcMethodHandler[Any, Any] = make(
            handle, request_class.FromString, lambda message: message.SerializeToString()
        )
        return handler

    def _next(self, rpc: str, request: Any, context: Any) -> Any:
        self.requests[rpc].append(request)
        self.deadlines_s[rpc].append(context.time_remaining())
        answers = self._answers[rpc]
        return (answers.pop(0) if len(answers) > 1 else answers[0])(request)

    def _unary(self, rpc: str) -> Any:
        async def handle(request: Any, context: Any) -> Any:
            try:
                response = self._next(rpc, request, context)
                return await response if inspect.isawaitable(response) else response
            except RefusalError as error:
                await context.abort_with_status(rpc_status.to_status(error.status))

        return handle

    def _collecting(self, rpc: str) -> Any:
        answer = self._unary(rpc)

        async def handle(requests: Any, context: Any) -> Any:
            return await answer([request async for request in requests], context)

        return handle

    def _streaming(self, rpc: str) -> Any:
        async def handle(request: Any, context: Any) -> AsyncIterator[Any]:
            try:
                stream = self._next(rpc, request, context)
                if inspect.isasyncgen(stream):
                    async for message in stream:
                        yield message
                else:
                    for message in stream:
                        yield message
            except RefusalError as error:
                await context.abort_with_status(rpc_status.to_status(error.status))

        return handle
