"""A guest that floods its serial port at full speed, beside another instance's verbs.

The flooding guest and its readers keep both cores busy by themselves, so a bare
grpc.aio reply is timed in turns with the verbs: what that loses, the machine has lost.
"""

import os
import select
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from statistics import median

import grpc
from virtrpc.v1 import console_pb2
from virtrpc.v1 import instance_pb2 as pb

from tests.attached import Attached
from tests.bench.bare_grpc import BareGrpc
from tests.bench.places import destroy, embedded_daemon, guest_spec, resident_bytes, spawn
from tests.bench.report import Row
from tests.bench.timing import Call, interleaved, p99
from tests.daemon import Connection, DaemonProcess
from tests.guest_console import pty_of

_ROUNDS = 150
_READERS = 8
_FLOODED_BYTES = 40 << 10
_RATE_S = 5.0
_READ_BYTES = 64 << 10
_VERBS = {"get": "GetInstance", "pause": "PauseInstance and UnpauseInstance"}
Taken = dict[str, list[float]]


def measure() -> Sequence[Row]:
    """Verbs of another instance, the daemon's memory, and bytes per second."""
    with (
        embedded_daemon() as daemon,
        BareGrpc(daemon.folder) as bare,
        daemon.connect() as connection,
    ):
        quiet = spawn(connection, guest_spec("quiet"))
        calls = _calls(connection, quiet, bare)
        phases = {"idle": interleaved(calls, rounds=_ROUNDS)}
        spec = guest_spec("flood")
        spec.image.kernel_args += " virtrpc.flood=1"
        flooding = spawn(connection, spec)
        _until_flooded(connection, flooding)
        before = resident_bytes(daemon)
        phases["flooded"] = interleaved(calls, rounds=_ROUNDS)
        with _attached(connection, flooding):
            phases["attached to"] = interleaved(calls, rounds=_ROUNDS)
            after = resident_bytes(daemon)
        rates = _through_daemon(connection, flooding), _from_pty(daemon)
        for instance_id in (quiet, flooding):
            destroy(connection, instance_id)
    return [*_latencies(phases), *_sizes(before, after, *rates)]


def _calls(connection: Connection, instance_id: str, bare: BareGrpc) -> dict[str, Call]:
    """The other instance, paused, is looked at, and goes on for a moment."""
    instances = connection.instances
    get = pb.GetInstanceRequest(instance_id=instance_id)
    pause = pb.PauseInstanceRequest(instance_id=instance_id)
    unpause = pb.UnpauseInstanceRequest(instance_id=instance_id)
    instances.PauseInstance(pause)

    def moment() -> None:
        instances.UnpauseInstance(unpause)
        instances.PauseInstance(pause)

    return {
        "get": lambda: instances.GetInstance(get),
        "pause": moment,
        "bare": lambda: bare.reply(1024),
    }


def _latencies(phases: dict[str, Taken]) -> Iterator[Row]:
    idle = phases.pop("idle")
    for phase, taken in phases.items():
        who = f"{_READERS} readers, a writer" if phase == "attached to" else "nobody attached"
        for call, verb in _VERBS.items():
            what = f"{verb} beside a flooded console, {who}"
            yield Row(what=f"{what}: median", value=median(taken[call]), unit="s",
                      against="the same at idle", base=median(idle[call]),
                      at_most=5 if phase == "attached to" else 3)  # fmt: skip
            yield Row(what=f"{what}: p99", value=p99(taken[call]), unit="s",
                      against="the same at idle", base=p99(idle[call]))  # fmt: skip
        yield Row(what=f"bare grpc.aio reply meanwhile, {who}: median", value=median(taken["bare"]),
                  unit="s", against="the same at idle", base=median(idle["bare"]))  # fmt: skip


def _sizes(before: int, after: int, streamed: float, direct: float) -> list[Row]:
    return [
        Row(what="RSS while a flooded console is attached to", value=after, unit="B",
            against="RSS before", base=before, at_most=1.15),
        Row(what="StreamConsoleOutput of a guest that floods", value=streamed, unit="B/s",
            against="its pty, read without a daemon", base=direct, at_least=0.5),
    ]  # fmt: skip


def _through_daemon(connection: Connection, instance_id: str) -> float:
    """Bytes per second that come out of a stream, those that expired left out."""
    request = console_pb2.StreamConsoleOutputRequest(instance_id=instance_id, now=True, follow=True)
    stream = connection.consoles.StreamConsoleOutput(request)
    ends = time.monotonic() + _RATE_S
    count = 0
    for response in stream:
        count += len(response.data.data)
        if time.monotonic() > ends:
            break
    stream.cancel()
    return count / _RATE_S


def _from_pty(daemon: DaemonProcess) -> float:
    """Bytes per second that the serial port gives to who reads nothing else."""
    port = os.open(pty_of(daemon, "flood"), os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK)
    try:
        select.select([port], [], [], _RATE_S)  # QEMU looks once a second who has opened it
        ends = time.monotonic() + _RATE_S
        count = 0
        while (left := ends - time.monotonic()) > 0:
            if select.select([port], [], [], left)[0]:
                count += len(os.read(port, _READ_BYTES))
    finally:
        os.close(port)
    return count / _RATE_S


def _until_flooded(connection: Connection, instance_id: str) -> None:
    """Until it floods: its kernel is silent by then."""
    request = console_pb2.StreamConsoleOutputRequest(instance_id=instance_id, offset=0, follow=True)
    stream = connection.consoles.StreamConsoleOutput(request)
    for response in stream:
        if response.data.offset > _FLOODED_BYTES:
            break
    stream.cancel()


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
