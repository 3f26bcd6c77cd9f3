"""All operations there are, in memory: those at work and the last that have ended.

Reads and watchers are served from here and never wait for the journal. Event
loop only.
"""

import asyncio
import hashlib
import hmac
import secrets
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice

from google.protobuf.message import Message
from virtrpc.v1.operation_pb2 import Operation

from backends.errors import InvalidArgumentError, NotFoundError
from backends.redaction import redacted
from service.operations.journal import RETAINED_OPERATIONS
from service.verbs import Verb


@dataclass(frozen=True)
class RequestKey:
    """What a caller repeats a call by: its request_id, within a verb and lane."""

    verb: str
    lane: str
    """Of a verb that has none, the instance."""
    request_id: str


def recorded_request(request: Message) -> bytes:
    """A request as the journal keeps it and as repeats are compared: without secrets."""
    return redacted(request).SerializeToString(deterministic=True)


@dataclass(frozen=True)
class _Asked:
    """What an operation was begun by."""

    operation_id: str
    recorded: bytes
    """Digest of the request without its secrets."""
    whole: bytes
    """Digest of the request with them; empty after a restart of the daemon."""


class OperationBook:
    """Operations by id, in the order of their acceptance."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)
        self._operations: OrderedDict[str, Operation] = OrderedDict()
        self._by_request: dict[RequestKey, _Asked] = {}
        self._keys: dict[str, RequestKey] = {}
        self._watchers: dict[str, set[asyncio.Event]] = {}

    def add(
        self, operation: Operation, *, lane: str, recorded: bytes, request: Message | None = None
    ) -> None:
        """Enters an operation; the oldest ended ones beyond the retention go.

        `request` is as it came, where it is known; its secrets are not kept.
        """
        self._operations[operation.operation_id] = operation
        if operation.request_id:
            key = RequestKey(operation.verb, lane or operation.instance_id, operation.request_id)
            whole = b"" if request is None else self._digest(request)
            digest = hashlib.sha256(recorded).digest()
            self._by_request[key] = _Asked(operation.operation_id, digest, whole)
            self._keys[operation.operation_id] = key
        self._forget_oldest()

    def remove(self, operation_id: str) -> None:
        """Takes out an operation, as one that the journal refused."""
        self._operations.pop(operation_id, None)
        key = self._keys.pop(operation_id, None)
        if key is not None:
            del self._by_request[key]

    def get(self, operation_id: str) -> Operation:
        """The operation; raises NotFoundError."""
        try:
            return self._operations[operation_id.lower()]
        except KeyError:
            raise NotFoundError(
                f"operation {operation_id} is not known, or no longer",
                reason="OPERATION_NOT_FOUND",
                metadata={"operation_id": operation_id},
            ) from None

    def newest_first(self) -> Iterator[Operation]:
        """All operations."""
        return reversed(self._operations.values())

    def repeated(self, verb: Verb, lane: str, request: Message) -> str | None:
        """Id of the operation that the same call with the same request_id began, if any.

        Raises InvalidArgumentError where that call was another.
        """
        request_id = getattr(request, "request_id", "")
        lane = lane or getattr(request, "instance_id", "")
        found = self._by_request.get(RequestKey(verb.name, lane, request_id))
        if not request_id or found is None:
            return None
        digest = hashlib.sha256(recorded_request(request)).digest()
        if digest != found.recorded or (found.whole and self._digest(request) != found.whole):
            raise InvalidArgumentError(
                f"request_id {request_id} was used for another {verb.name} request",
                field="request_id",
                reason="REQUEST_ID_REUSED",
                metadata={"operation_id": found.operation_id},
            )
        return found.operation_id

    def changed(self, operation_id: str) -> None:
        """Wakes the watchers of an operation."""
        for watcher in self._watchers.get(operation_id, ()):
            watcher.set()

    async def watch(self, operation_id: str) -> AsyncIterator[Operation]:
        """The operation as it stands, again after changes, until it is done."""
        operation = self.get(operation_id)
        with self._watching(operation.operation_id) as wake:
            while True:
                wake.clear()
                # Looked at before it is shown: it may end while the watcher is at work.
                done = operation.done
                yield operation
                if done:
                    return
                await wake.wait()

    @contextmanager
    def _watching(self, operation_id: str) -> Iterator[asyncio.Event]:
        wake = asyncio.Event()
        self._watchers.setdefault(operation_id, set()).add(wake)
        try:
            yield wake
        finally:
            self._watchers[operation_id].discard(wake)
            if not self._watchers[operation_id]:
                del self._watchers[operation_id]

    def _digest(self, request: Message) -> bytes:
        """Of all of a request, by a key of this run of the daemon: it tells no password."""
        return hmac.digest(self._key, request.SerializeToString(deterministic=True), "sha256")

    def _forget_oldest(self) -> None:
        excess = len(self._operations) - RETAINED_OPERATIONS
        if excess <= 0:
            return
        ended = (o.operation_id for o in self._operations.values() if o.done)
        for operation_id in list(islice(ended, excess)):
            self.remove(operation_id)
