"""A guest that floods its serial port, watched and typed at, beside another instance's verbs.

The flooding guest keeps a core busy by itself, so it is measured with and without
anybody attached: the difference is the daemon's.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from statistics import median

import grpc
from virtrpc.v1 import console_pb2
from virtrpc.v1 import instance_pb2 as pb

from tests.attached import Attached
from tests.bench.places import destroy, embedded_daemon, guest_spec, resident_bytes, spawn
from tests.bench.report import Row
from tests.bench.timing import interleaved, p99
from tests.daemon import Connection

_ROUNDS = 1_000
_READERS = 8
_FLOODED_BYTES = 40 << 10


def measure() -> Sequence[Row]:
    """GetInstance of another instance, and the daemon's memory."""
    with embedded_daemon() as daemon, daemon.connect() as connection, ExitStack() as held:
        quiet = spawn(connection, guest_spec("quiet"))
        connection.instances.PauseInstance(pb.PauseInstanceRequest(instance_id=quiet))
        spec = guest_spec("flood")
        spec.image.kernel_args += " virtrpc.flood=1"
        flooding = spawn(connection, spec)
        _until_flooded(connection, flooding)
        alone = _get(connection, quiet)
        before = resident_bytes(daemon)
        with _attached(connection, flooding):
            together = _get(connection, quiet)
            after = resident_bytes(daemon)
        for instance_id in (quiet, flooding):
            held.callback(destroy, connection, instance_id)
    what = f"GetInstance beside a flooded console, {_READERS} readers, a writer"
    return [
        Row(what=f"{what}: median", value=median(together), unit="s",
            against="flooded, nobody attached", base=median(alone), at_most=3),
        Row(what=f"{what}: p99", value=p99(together), unit="s",
            against="flooded, nobody attached", base=p99(alone)),
        Row(what="RSS while a flooded console is attached to", value=after, unit="B",
            against="RSS before", base=before, at_most=1.15),
    ]  # fmt: skip


def _until_flooded(connection: Connection, instance_id: str) -> None:
    """Until it floods: its kernel is silent by then."""
    request = console_pb2.StreamConsoleOutputRequest(instance_id=instance_id, offset=0, follow=True)
    stream = connection.consoles.StreamConsoleOutput(request)
    for response in stream:
        if response.data.offset > _FLOODED_BYTES:
            break
    stream.cancel()


def _get(connection: Connection, instance_id: str) -> list[float]:
    request = pb.GetInstanceRequest(instance_id=instance_id)
    return interleaved({"get": lambda: connection.instances.GetInstance(request)}, rounds=_ROUNDS)[
        "get"
    ]


@contextmanager
def _attached(connection: Connection, instance_id: str) -> Iterator[None]:
    """Half of the readers read; the writer types once, which opens the port."""
    with ExitStack() as held:
        readers = [Attached(connection, instance_id) for _ in range(_READERS)]
        writer = Attached(connection, instance_id, mode=console_pb2.CONSOLE_MODE_WRITER)
        for attached in (*readers, writer):
            held.enter_context(attached).opened()
        writer.type(b"\r")
        for reader in readers[::2]:
            threading.Thread(target=_read, args=(reader,), daemon=True).start()
        yield


def _read(reader: Attached) -> None:
    with suppress(grpc.RpcError):  # cancelled at the end
        for _ in reader.responses:
            pass
