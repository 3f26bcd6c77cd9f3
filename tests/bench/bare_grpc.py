"""A grpc.aio server that does nothing but answer: what the daemon's speed is held against.

Run as a program it serves at the address given; `BareGrpc` runs it so, in a
process of its own like the daemon.

    Reply   "SIZE"         → SIZE bytes
    Stream  "COUNT SIZE"   → COUNT messages of SIZE bytes
"""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import grpc

if TYPE_CHECKING:
    _Reply = grpc.UnaryUnaryMultiCallable[bytes, bytes]
    _Stream = grpc.UnaryStreamMultiCallable[bytes, bytes]

_SERVICE = "bench.Bare"
REPLY, STREAM = f"/{_SERVICE}/Reply", f"/{_SERVICE}/Stream"


class BareGrpc:
    """The server on a Unix socket below `folder`. Use it as a context."""

    def __init__(self, folder: Path) -> None:
        self.address = f"unix:{folder}/bare.sock"

    def __enter__(self) -> "BareGrpc":
        self._process = subprocess.Popen(
            [sys.executable, "-m", __spec__.name, self.address], stdout=subprocess.PIPE
        )
        assert self._process.stdout is not None
        self._process.stdout.readline()
        self._channel = grpc.insecure_channel(self.address)
        self._reply: grpc.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(REPLY)
        self._stream: grpc.UnaryStreamMultiCallable[bytes, bytes] = self._channel.unary_stream(
            STREAM
        )
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._channel.close()
        self._process.terminate()
        self._process.communicate()

    def reply(self, size: int) -> bytes:
        """One reply of so many bytes."""
        return self._reply(str(size).encode())

    def stream(self, *, count: int, size: int) -> Iterator[bytes]:
        """So many messages of so many bytes."""
        return iter(self._stream(stream_request(count=count, size=size)))


def stream_request(*, count: int, size: int) -> bytes:
    """Request of STREAM."""
    return f"{count} {size}".encode()


async def _answer(request: bytes, _context: Any) -> bytes:
    return bytes(int(request))


async def _answer_often(request: bytes, _context: Any) -> AsyncIterator[bytes]:
    count, size = map(int, request.split())
    message = bytes(size)
    for _ in range(count):
        yield message


async def _serve(address: str) -> None:
    server = grpc.aio.server()
    handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
        "Reply": grpc.unary_unary_rpc_method_handler(_answer),
        "Stream": grpc.unary_stream_rpc_method_handler(_answer_often),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, handlers),))
    server.add_insecure_port(address)
    await server.start()
    print("serving", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1]))
