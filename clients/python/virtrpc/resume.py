"""Streams that go on where they broke off.

A subscription knows how to ask for what it has not had yet, and no I/O. The two
drivers below, one blocking and one for asyncio, open the stream, and open it
anew when it breaks for a reason that passes (UNAVAILABLE: the daemon restarts;
RESOURCE_EXHAUSTED: the watcher was too slow).

    open ──message──▶ live ──broken──▶ wait ──▶ open …   given up after `tries` in a row
      └─broken: raised, for there is nothing to resume from
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import grpc

from virtrpc.errors import RpcError, made
from virtrpc.v1.types_pb2 import Error

Item = TypeVar("Item")
Item_co = TypeVar("Item_co", covariant=True)
# Told of a break that will be mended: the error, and the pause before the next try in seconds.
OnRetry = Callable[[RpcError, float], None]


@dataclass(frozen=True)
class Backoff:
    """How a broken stream is opened again.

    The first pause is `first_s` seconds, each one after it twice as long, up to
    `longest_s`; after `tries` in a row without a message the error is raised.
    """

    first_s: float = 0.1
    longest_s: float = 5.0
    tries: int = 12

    def pauses_s(self) -> Iterator[float]:
        """The pauses, in order."""
        for power in range(self.tries):
            yield min(self.longest_s, self.first_s * 2**power)


class Subscription(Protocol[Item_co]):
    """What is asked of a stream, and what has come of it.

    `ended`: nothing is left to ask for. `ends_with_stream`: a stream that ends
    well has said all; else it has only when `ended`.
    """

    ended: bool
    ends_with_stream: bool

    def request(self) -> Any:
        """The request that brings what has not come yet."""

    def accept(self, message: Any) -> Iterable[Item_co]:
        """Takes note of a message; returns what of it is passed on."""


class Retries:
    """Decides whether and when a broken call is repeated."""

    def __init__(self, backoff: Backoff, on_retry: OnRetry | None) -> None:
        self._backoff = backoff
        self._on_retry = on_retry
        self._pauses_s: Iterator[float] = iter(())

    def progress(self) -> None:
        """Something came: a break is mended from here, with all tries left."""
        self._pauses_s = self._backoff.pauses_s()

    def pause_s(self, error: RpcError) -> float:
        """Seconds to wait before the next try; raises `error` when there is none."""
        pause_s = next(self._pauses_s, None) if error.transient else None
        if pause_s is None:
            raise error
        pause_s = max(pause_s, error.retry_after_s or 0)
        if self._on_retry is not None:
            self._on_retry(error, pause_s)
        return pause_s


def follow(
    call: Callable[[Any], Any], subscription: Subscription[Item], retries: Retries
) -> Iterator[Item]:
    """Everything that the subscription asks for, in order. Blocks between items."""
    while not subscription.ended:
        stream = call(subscription.request())
        try:
            for message in stream:
                retries.progress()
                yield from subscription.accept(message)
            if subscription.ended or subscription.ends_with_stream:
                return
            raise _broken_off()
        except RpcError as error:
            time.sleep(retries.pause_s(error))
        finally:
            stream.cancel()


async def follow_async(
    call: Callable[[Any], Any], subscription: Subscription[Item], retries: Retries
) -> AsyncIterator[Item]:
    """As `follow`, for asyncio."""
    while not subscription.ended:
        stream = call(subscription.request())
        try:
            async for message in stream:
                retries.progress()
                for item in subscription.accept(message):
                    yield item
            if subscription.ended or subscription.ends_with_stream:
                return
            raise _broken_off()
        except RpcError as error:
            await asyncio.sleep(retries.pause_s(error))
        finally:
            stream.cancel()


def _broken_off() -> RpcError:
    """A stream ended well before it had said all."""
    code: int = grpc.StatusCode.UNAVAILABLE.value[0]
    return made(Error(code=code, reason="BROKEN_OFF", message="the stream ended before its time"))
