"""Channels whose calls raise `virtrpc.errors`, for the generated stubs to be made on.

A stub asks its channel for one multi-callable per RPC; these channels wrap each
so that the status of a failed call comes out as a typed RpcError, whose cause
is grpc's own. Whatever else grpc offers on calls and multi-callables (`future`,
`with_call`, `cancel`, …) passes through unchanged.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from typing import Any

import grpc
import grpc.aio

from virtrpc import errors
from virtrpc.address import Address

# Listings of a full host are larger than grpc's 4 MiB; after a lost connection
# grpc would wait up to two minutes before it tries again; an idle stream to a
# host that has vanished would never end (servers allow a ping every 5 min).
OPTIONS = (
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 5000),
    ("grpc.keepalive_time_ms", 330_000),
    ("grpc.keepalive_timeout_ms", 20_000),
)


class _Wrapper:
    """Gives what it does not have itself from what it wraps."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class _Unary(_Wrapper):
    def __init__(self, inner: Any, timeout_s: float | None) -> None:
        super().__init__(inner)
        self._timeout_s = timeout_s

    def __call__(self, request: Any, timeout: float | None = None, **kwargs: Any) -> Any:
        try:
            return self._inner(request, timeout=self._deadline_s(timeout), **kwargs)
        except grpc.RpcError as error:
            raise errors.from_grpc(error) from error

    def _deadline_s(self, timeout: float | None) -> float | None:
        return self._timeout_s if timeout is None else timeout


class _Streaming(_Wrapper):
    def __call__(self, *args: Any, **kwargs: Any) -> _Stream:
        return _Stream(self._inner(*args, **kwargs))


class _Stream(_Wrapper):
    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        try:
            return next(self._inner)
        except grpc.RpcError as error:
            raise errors.from_grpc(error) from error


class _AsyncUnary(_Unary):
    def __call__(self, request: Any, timeout: float | None = None, **kwargs: Any) -> _AsyncCall:
        return _AsyncCall(self._inner(request, timeout=self._deadline_s(timeout), **kwargs))


class _AsyncStreaming(_Wrapper):
    def __call__(self, *args: Any, **kwargs: Any) -> _AsyncCall:
        return _AsyncCall(self._inner(*args, **kwargs))


class _AsyncCall(_Wrapper):
    def __await__(self) -> Generator[Any, None, Any]:
        return _typed(self._inner).__await__()

    async def __aiter__(self) -> AsyncIterator[Any]:
        try:
            async for message in self._inner:
                yield message
        except grpc.RpcError as error:
            raise errors.from_grpc(error) from error

    async def read(self) -> Any:
        return await _typed(self._inner.read())

    async def write(self, request: Any) -> None:
        await _typed(self._inner.write(request))


async def _typed(awaitable: Awaitable[Any]) -> Any:
    try:
        return await awaitable
    except grpc.RpcError as error:
        raise errors.from_grpc(error) from error


class TypedChannel(_Wrapper):
    """A grpc.Channel. Unary calls without a deadline of their own get `timeout_s`."""

    _unary: Callable[[Any, float | None], Any] = _Unary
    _streaming: Callable[[Any], Any] = _Streaming

    def __init__(self, inner: Any, *, timeout_s: float | None) -> None:
        super().__init__(inner)
        self._timeout_s = timeout_s

    def unary_unary(self, *args: Any, **kwargs: Any) -> Any:
        """One request, one response."""
        return self._unary(self._inner.unary_unary(*args, **kwargs), self._timeout_s)

    def unary_stream(self, *args: Any, **kwargs: Any) -> Any:
        """One request, many responses."""
        return self._streaming(self._inner.unary_stream(*args, **kwargs))

    def stream_unary(self, *args: Any, **kwargs: Any) -> Any:
        """Many requests, one response; takes as long as the requests do."""
        return self._unary(self._inner.stream_unary(*args, **kwargs), None)

    def stream_stream(self, *args: Any, **kwargs: Any) -> Any:
        """Many requests, many responses."""
        return self._streaming(self._inner.stream_stream(*args, **kwargs))


class AsyncTypedChannel(TypedChannel):
    """A grpc.aio.Channel; else as TypedChannel."""

    _unary = _AsyncUnary
    _streaming = _AsyncStreaming


def connect(
    address: Address,
    *,
    credentials: grpc.ChannelCredentials | None,
    timeout_s: float | None,
) -> TypedChannel:
    """A blocking channel; connects when first used."""
    credentials = _credentials(address, credentials)
    if credentials is None:
        inner = grpc.insecure_channel(address.target, options=OPTIONS)
    else:
        inner = grpc.secure_channel(address.target, credentials, options=OPTIONS)
    return TypedChannel(inner, timeout_s=timeout_s)


def connect_async(
    address: Address,
    *,
    credentials: grpc.ChannelCredentials | None,
    timeout_s: float | None,
) -> AsyncTypedChannel:
    """An asyncio channel; connects when first used. Made inside a running loop."""
    credentials = _credentials(address, credentials)
    if credentials is None:
        inner = grpc.aio.insecure_channel(address.target, options=OPTIONS)
    else:
        inner = grpc.aio.secure_channel(address.target, credentials, options=OPTIONS)
    return AsyncTypedChannel(inner, timeout_s=timeout_s)


def _credentials(
    address: Address, given: grpc.ChannelCredentials | None
) -> grpc.ChannelCredentials | None:
    if given is None and address.secure:
        return grpc.ssl_channel_credentials()
    return given
