"""The clients: all services by their nouns, and what takes more than one call.

`Client` blocks and may be shared by threads; `AsyncClient` belongs to one event
loop. Both connect when first used and raise `virtrpc.errors`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import TYPE_CHECKING

import grpc
from google.protobuf.message import Message

from virtrpc.address import Address, parsed
from virtrpc.attachment import ConsoleAttachment
from virtrpc.channel import connect, connect_async
from virtrpc.errors import RpcError
from virtrpc.outcome import Waiting, result_of
from virtrpc.resume import Backoff, OnRetry, Retries, follow, follow_async
from virtrpc.services import Services
from virtrpc.subscriptions import (
    ConsoleSubscription,
    EventSubscription,
    ImageSubscription,
    OperationSubscription,
)
from virtrpc.v1.console_pb2 import AttachConsoleOpen, StreamConsoleOutputResponse
from virtrpc.v1.event_pb2 import Event, EventCursor, EventType
from virtrpc.v1.image_pb2 import DownloadImageResponse
from virtrpc.v1.operation_pb2 import Operation

if TYPE_CHECKING:
    from virtrpc.v1 import console_pb2_grpc as console
    from virtrpc.v1 import diagnostics_pb2_grpc as diagnostics
    from virtrpc.v1 import event_pb2_grpc as event
    from virtrpc.v1 import firewall_pb2_grpc as firewall
    from virtrpc.v1 import host_pb2_grpc as host
    from virtrpc.v1 import image_pb2_grpc as image
    from virtrpc.v1 import instance_pb2_grpc as instance
    from virtrpc.v1 import interface_pb2_grpc as interface
    from virtrpc.v1 import migration_pb2_grpc as migration
    from virtrpc.v1 import operation_pb2_grpc as operation
    from virtrpc.v1 import volume_pb2_grpc as volume


class Client(Services):
    """A daemon, for code that blocks.

    `address` as virtrpc.address notes it; None: this user's local daemon.
    `credentials` for TLS; None with a `grpcs://` address: the system's
    authorities and no certificate of our own. `timeout_s`: deadline in seconds
    of unary calls that do not give one; None: none. `backoff`: how streams and
    waits are mended.
    """

    consoles: console.ConsoleServiceStub
    diagnostics: diagnostics.DiagnosticsServiceStub
    events: event.EventServiceStub
    firewall: firewall.FirewallServiceStub
    hosts: host.HostServiceStub
    images: image.ImageServiceStub
    instances: instance.InstanceServiceStub
    interfaces: interface.InterfaceServiceStub
    migrations: migration.MigrationServiceStub
    operations: operation.OperationServiceStub
    volumes: volume.VolumeServiceStub

    def __init__(
        self,
        address: str | Address | None = None,
        *,
        credentials: grpc.ChannelCredentials | None = None,
        timeout_s: float | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        self.address = parsed(address)
        self._channel = connect(self.address, credentials=credentials, timeout_s=timeout_s)
        self._backoff = backoff or Backoff()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection and every call on it."""
        self._channel.close()

    def wait(self, operation: Operation | str, *, timeout_s: float | None = None) -> Message | None:
        """Blocks until an operation (or the one of this id) has ended; returns its typed result.

        Waits on while the daemon restarts. Raises OperationError when it FAILED
        or was CANCELLED, DeadlineExceededError when it still runs after
        `timeout_s` seconds: it goes on then.
        """
        waiting = Waiting(operation, timeout_s, self._backoff)
        while not waiting.over:
            try:
                waiting.accept(
                    self.operations.WaitOperation(waiting.request(), timeout=waiting.deadline_s())
                )
            except RpcError as error:
                time.sleep(waiting.pause_s(error))
        return result_of(waiting.operation)

    def watch_operation(
        self,
        operation_id: str,
        *,
        timeout_s: float | None = None,
        on_retry: OnRetry | None = None,
    ) -> Iterator[Operation]:
        """An operation as it stands, again on every change, until it has ended.

        Raises DeadlineExceededError `timeout_s` seconds after the (last) connect.
        """
        return follow(
            lambda request: self.operations.WatchOperation(request, timeout=timeout_s),
            OperationSubscription(operation_id),
            Retries(self._backoff, on_retry),
        )

    def watch_events(
        self,
        *,
        after: EventCursor | None = None,
        snapshot: bool = False,
        instance_ids: Iterable[str] = (),
        types: Iterable[EventType.ValueType] = (),
        heartbeats: bool = False,
        on_retry: OnRetry | None = None,
    ) -> Iterator[Event]:
        """Events as they happen, without end; blocks between them.

        After a break (the daemon restarts, this watcher was too slow) it resumes
        behind the last event by itself, so every event comes once; where events
        are lost a GAP comes in their place. A snapshot that broke off comes again
        from its beginning. Arguments as in WatchEventsRequest; HEARTBEAT events
        come only with `heartbeats`. `on_retry` is called before each new try.
        Raises RpcError when the first message does not come, and when the stream
        cannot be mended.
        """
        subscription = EventSubscription(
            after=after,
            snapshot=snapshot,
            instance_ids=instance_ids,
            types=types,
            heartbeats=heartbeats,
        )
        retries = Retries(self._backoff, on_retry)
        return follow(self.events.WatchEvents, subscription, retries)

    def follow_console(
        self,
        instance_id: str,
        *,
        offset: int | None = None,
        tail_bytes: int | None = None,
        on_retry: OnRetry | None = None,
    ) -> Iterator[StreamConsoleOutputResponse]:
        """A console's output from `offset`, or from `tail_bytes` before its end, or from now on.

        Yields messages with `data` (bytes in order, each once), `expired` (bytes
        that could not come) or `moved` (the last one); blocks between them. After
        a break it resumes behind the last byte by itself. Ends when the instance
        is destroyed or has moved. Raises RpcError as `watch_events`.
        """
        subscription = ConsoleSubscription(instance_id, offset=offset, tail_bytes=tail_bytes)
        retries = Retries(self._backoff, on_retry)
        return follow(self.consoles.StreamConsoleOutput, subscription, retries)

    def attach_console(
        self, opening: AttachConsoleOpen, *, on_retry: OnRetry | None = None
    ) -> ConsoleAttachment:
        """A serial port to read and to type at; nothing is asked before it is iterated.

        After a break it resumes behind the last byte, as a reader where somebody
        else has become the writer meanwhile. Raises RpcError as `watch_events`.
        """
        return ConsoleAttachment(
            self.consoles.AttachConsole, opening, backoff=self._backoff, on_retry=on_retry
        )

    def download_image(
        self,
        image_id: str,
        *,
        offset: int = 0,
        expected_checksum: str = "",
        on_retry: OnRetry | None = None,
    ) -> Iterator[DownloadImageResponse]:
        """An image's file: first a message with the image, then its bytes from `offset` on.

        `expected_checksum` is that of the image of which the bytes before are; empty:
        not compared. After a break it resumes behind the last byte by itself, so every
        byte comes once. Raises RpcError as `watch_events`, and FailedPreconditionError
        (IMAGE_CHANGED) where the id has another image by then.
        """
        subscription = ImageSubscription(
            image_id, offset=offset, expected_checksum=expected_checksum
        )
        retries = Retries(self._backoff, on_retry)
        return follow(self.images.DownloadImage, subscription, retries)


class AsyncClient(Services):
    """A daemon, for asyncio. Arguments as Client; made inside the running loop."""

    consoles: console.ConsoleServiceAsyncStub
    diagnostics: diagnostics.DiagnosticsServiceAsyncStub
    events: event.EventServiceAsyncStub
    firewall: firewall.FirewallServiceAsyncStub
    hosts: host.HostServiceAsyncStub
    images: image.ImageServiceAsyncStub
    instances: instance.InstanceServiceAsyncStub
    interfaces: interface.InterfaceServiceAsyncStub
    migrations: migration.MigrationServiceAsyncStub
    operations: operation.OperationServiceAsyncStub
    volumes: volume.VolumeServiceAsyncStub

    def __init__(
        self,
        address: str | Address | None = None,
        *,
        credentials: grpc.ChannelCredentials | None = None,
        timeout_s: float | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        self.address = parsed(address)
        self._channel = connect_async(self.address, credentials=credentials, timeout_s=timeout_s)
        self._backoff = backoff or Backoff()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends the connection and every call on it."""
        await self._channel.close()

    async def wait(
        self, operation: Operation | str, *, timeout_s: float | None = None
    ) -> Message | None:
        """As Client.wait."""
        waiting = Waiting(operation, timeout_s, self._backoff)
        while not waiting.over:
            try:
                waiting.accept(
                    await self.operations.WaitOperation(
                        waiting.request(), timeout=waiting.deadline_s()
                    )
                )
            except RpcError as error:
                await asyncio.sleep(waiting.pause_s(error))
        return result_of(waiting.operation)

    def watch_operation(
        self,
        operation_id: str,
        *,
        timeout_s: float | None = None,
        on_retry: OnRetry | None = None,
    ) -> AsyncIterator[Operation]:
        """As Client.watch_operation."""
        return follow_async(
            lambda request: self.operations.WatchOperation(request, timeout=timeout_s),
            OperationSubscription(operation_id),
            Retries(self._backoff, on_retry),
        )

    def watch_events(
        self,
        *,
        after: EventCursor | None = None,
        snapshot: bool = False,
        instance_ids: Iterable[str] = (),
        types: Iterable[EventType.ValueType] = (),
        heartbeats: bool = False,
        on_retry: OnRetry | None = None,
    ) -> AsyncIterator[Event]:
        """As Client.watch_events."""
        subscription = EventSubscription(
            after=after,
            snapshot=snapshot,
            instance_ids=instance_ids,
            types=types,
            heartbeats=heartbeats,
        )
        retries = Retries(self._backoff, on_retry)
        return follow_async(self.events.WatchEvents, subscription, retries)

    def follow_console(
        self,
        instance_id: str,
        *,
        offset: int | None = None,
        tail_bytes: int | None = None,
        on_retry: OnRetry | None = None,
    ) -> AsyncIterator[StreamConsoleOutputResponse]:
        """As Client.follow_console."""
        subscription = ConsoleSubscription(instance_id, offset=offset, tail_bytes=tail_bytes)
        retries = Retries(self._backoff, on_retry)
        return follow_async(self.consoles.StreamConsoleOutput, subscription, retries)

    def download_image(
        self,
        image_id: str,
        *,
        offset: int = 0,
        expected_checksum: str = "",
        on_retry: OnRetry | None = None,
    ) -> AsyncIterator[DownloadImageResponse]:
        """As Client.download_image."""
        subscription = ImageSubscription(
            image_id, offset=offset, expected_checksum=expected_checksum
        )
        retries = Retries(self._backoff, on_retry)
        return follow_async(self.images.DownloadImage, subscription, retries)
