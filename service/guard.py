"""What is served beside the contract, such as health and reflection, to viewers alone.

The dispatcher lets callers in to verbs of the contract. Whatever another library answers
passes here, so that nothing is served to anybody because nobody thought of it.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Container
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.message import DecodeError
from grpc_status import rpc_status
from virtrpc.v1.options_pb2 import ROLE_VIEWER

from backends.errors import ContractError, InvalidArgumentError
from service.errors import status_of
from service.identity import Gate

if TYPE_CHECKING:
    Handler = grpc.RpcMethodHandler[Any, Any]
Behaviour = Callable[[Any, Any], Any]


class Guard(grpc.aio.ServerInterceptor):
    """Before all handlers but those of `verbs`, by their paths, which look themselves."""

    def __init__(self, gate: Gate, verbs: Container[str]) -> None:
        self._gate = gate
        self._verbs = verbs

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """See grpc.aio.ServerInterceptor."""
        handler = await continuation(handler_call_details)
        path = handler_call_details.method
        if path in self._verbs or handler is None:
            return handler
        return self._guarded(handler, path)

    def _guarded(self, handler: Handler, path: str) -> Handler:
        """The same, but that a lone request comes as bytes: who is denied costs no parsing."""
        make, behaviour = _kind(handler)
        parse = handler.request_deserializer
        if handler.request_streaming:
            guarded = self._before(behaviour, None, path)
        else:
            guarded, parse = self._before(behaviour, parse, path), None
        return make(guarded, parse, handler.response_serializer)

    def _before(
        self, behaviour: Behaviour, parse: Callable[[bytes], Any] | None, path: str
    ) -> Behaviour:
        async def admitted(incoming: Any, context: Any) -> Any:
            try:
                self._gate.admit(context, role=ROLE_VIEWER, call=path)
                return incoming if parse is None else _parsed(parse, incoming)
            except ContractError as error:
                await context.abort_with_status(rpc_status.to_status(status_of(error)))

        async def replies(incoming: Any, context: Any) -> AsyncIterator[Any]:
            async for reply in behaviour(await admitted(incoming, context), context):
                yield reply

        async def reply(incoming: Any, context: Any) -> Any:
            return await behaviour(await admitted(incoming, context), context)

        return replies if inspect.isasyncgenfunction(behaviour) else reply


def _parsed(parse: Callable[[bytes], Any], raw: bytes) -> Any:
    try:
        return parse(raw)
    except DecodeError as error:
        raise InvalidArgumentError("malformed Protobuf") from error


def _kind(handler: Handler) -> tuple[Callable[..., Handler], Behaviour]:
    kinds = {
        (False, False): (grpc.unary_unary_rpc_method_handler, handler.unary_unary),
        (False, True): (grpc.unary_stream_rpc_method_handler, handler.unary_stream),
        (True, False): (grpc.stream_unary_rpc_method_handler, handler.stream_unary),
        (True, True): (grpc.stream_stream_rpc_method_handler, handler.stream_stream),
    }
    make, behaviour = kinds[handler.request_streaming, handler.response_streaming]
    assert behaviour is not None, "a handler without behaviour"  # noqa: S101
    return make, behaviour
