"""A flooded console log, followed: bytes per second through the daemon.

What is written never runs further ahead of the reader than the log is sure to
keep, so nothing expires; the file itself is read in the same way.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median

from virtrpc.v1 import console_pb2 as pb

from backends.console_log import TAIL_BYTES
from tests.bench.bare_grpc import BareGrpc
from tests.bench.places import fake_daemon, fake_spec, spawn
from tests.bench.report import Row
from tests.bench.timing import Call, timed
from tests.daemon import Connection, DaemonProcess

_MIB = 1 << 20
_FLOOD_BYTES = 48 * _MIB
_PIECE_BYTES = 128 * 1024
_AHEAD_BYTES = TAIL_BYTES - _PIECE_BYTES
_MESSAGE_BYTES = 64 * 1024
_LINE = b"virtrpc flood 0123456789abcdefghijklmnopqrstuvwxyz\r\n"
_ROUNDS = 7


def measure() -> Sequence[Row]:
    """Throughput of StreamConsoleOutput, and bytes that were lost."""
    with (
        fake_daemon() as daemon,
        BareGrpc(daemon.folder) as bare,
        daemon.connect() as connection,
    ):
        instance_id = spawn(connection, fake_spec("console"))
        console = _Flooded(connection, instance_id, _console_file(daemon, instance_id))
        roads: dict[str, Call] = {
            "daemon": console.through_daemon,
            "bare": lambda: console.beside(bare),
            "file": console.in_place,
        }
        rates: dict[str, list[float]] = {name: [] for name in roads}
        for _ in range(_ROUNDS):
            for name, road in roads.items():
                rates[name].append(_FLOOD_BYTES / timed(road))
    return _rows({name: median(rate) for name, rate in rates.items()}, console.expired_bytes)


def _rows(rates: dict[str, float], expired_bytes: int) -> list[Row]:
    what, unit = "StreamConsoleOutput", "B/s"
    return [
        Row(what=what, value=rates["daemon"], unit=unit, at_least=0.4,
            against="bare grpc.aio stream of 64 KiB messages", base=rates["bare"]),
        Row(what=what, value=rates["daemon"], unit=unit,
            against="the file, read as it grows", base=rates["file"]),
        Row(what="console bytes lost", value=expired_bytes, unit="B", at_most=0),
    ]  # fmt: skip


class _Flooded:
    """The console of an instance, flooded while it is read."""

    def __init__(self, connection: Connection, instance_id: str, file: Path) -> None:
        self.expired_bytes = 0
        self._connection = connection
        self._instance_id = instance_id
        self._file = file

    def through_daemon(self) -> None:
        """By StreamConsoleOutput."""
        start = self._file.stat().st_size
        request = pb.StreamConsoleOutputRequest(
            instance_id=self._instance_id, offset=start, follow=True
        )
        stream = self._connection.consoles.StreamConsoleOutput(request)
        self._flood_while_read(map(self._length, stream))
        stream.cancel()

    def beside(self, bare: BareGrpc) -> None:
        """By a stream that has nothing to do with the file."""
        count = _FLOOD_BYTES // _MESSAGE_BYTES
        self._flood_while_read(map(len, bare.stream(count=count, size=_MESSAGE_BYTES)))

    def in_place(self) -> None:
        """Without a daemon."""
        with self._file.open("rb", buffering=0) as reader:
            reader.seek(0, os.SEEK_END)
            self._flood_while_read(iter(lambda: len(reader.read(_MESSAGE_BYTES)), 0))

    def _length(self, response: pb.StreamConsoleOutputResponse) -> int:
        expired = response.expired.end - response.expired.begin
        self.expired_bytes += expired
        return len(response.data.data) + expired

    def _flood_while_read(self, lengths: Iterator[int]) -> None:
        """Writes ahead of the reader, but never further than the log is sure to keep."""
        pieces = _pieces(self._file)
        written, received = next(pieces), 0
        while received < _FLOOD_BYTES:
            received += next(lengths)
            while written < min(_FLOOD_BYTES, received + _AHEAD_BYTES):
                written = next(pieces)


def _pieces(file: Path) -> Iterator[int]:
    """Appends piece by piece; gives how much was written so far."""
    piece = (_LINE * (_PIECE_BYTES // len(_LINE) + 1))[:_PIECE_BYTES]
    with file.open("ab", buffering=0) as console:
        for written in range(_PIECE_BYTES, _FLOOD_BYTES + 1, _PIECE_BYTES):
            console.write(piece)
            yield written


def _console_file(daemon: DaemonProcess, instance_id: str) -> Path:
    return next((daemon.state_dir / "fake" / instance_id).glob("console.*.log"))
