"""A flooded console log, followed: bytes per second through the daemon.

What is written never runs further ahead of the reader than the log is sure to
keep, so nothing expires; the file itself is read in the same way.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median

from virtrpc.v1 import console_pb2 as pb

from backends.console_log import TAIL_BYTES
from tests.bench.bare_grpc import BareGrpc
from tests.bench.places import fake_daemon, fake_spec, spawn
from tests.bench.report import Row
from tests.bench.timing import timed
from tests.daemon import Connection, DaemonProcess

_MIB = 1 << 20
_FLOOD_BYTES = 48 * _MIB
_PIECE_BYTES = 128 * 1024
_AHEAD_BYTES = TAIL_BYTES - _PIECE_BYTES
_MESSAGE_BYTES = 64 * 1024
_LINE = b"virtrpc flood 0123456789abcdefghijklmnopqrstuvwxyz\r\n"
_ROUNDS = 5


def measure() -> Sequence[Row]:
    """Throughput of StreamConsoleOutput, and bytes that were lost."""
    with (
        fake_daemon() as daemon,
        BareGrpc(daemon.folder) as bare,
        daemon.connect() as connection,
    ):
        instance_id = spawn(connection, fake_spec("console"))
        follower = _Follower(connection, instance_id, _console_file(daemon, instance_id))
        count = _FLOOD_BYTES // _MESSAGE_BYTES
        roads: dict[str, Callable[[], object]] = {
            "daemon": follower.follow,
            "bare": lambda: bare.stream(count=count, size=_MESSAGE_BYTES),
            "file": follower.read_file,
        }
        rates: dict[str, list[float]] = {name: [] for name in roads}
        for _ in range(_ROUNDS):
            for name, road in roads.items():
                rates[name].append(_FLOOD_BYTES / timed(road))
    return _rows({name: median(rate) for name, rate in rates.items()}, follower.expired_bytes)


def _rows(rates: dict[str, float], expired_bytes: int) -> list[Row]:
    what, unit = "StreamConsoleOutput", "B/s"
    return [
        Row(what=what, value=rates["daemon"], unit=unit, at_least=0.5,
            against="bare grpc.aio stream of 64 KiB messages", base=rates["bare"]),
        Row(what=what, value=rates["daemon"], unit=unit,
            against="the file, read as it grows", base=rates["file"]),
        Row(what="console bytes lost", value=expired_bytes, unit="B", at_most=0),
    ]  # fmt: skip


class _Follower:
    """Floods the console of an instance and reads what it writes."""

    def __init__(self, connection: Connection, instance_id: str, file: Path) -> None:
        self.expired_bytes = 0
        self._connection = connection
        self._instance_id = instance_id
        self._file = file

    def follow(self) -> None:
        """By StreamConsoleOutput."""
        start = self._file.stat().st_size
        request = pb.StreamConsoleOutputRequest(
            instance_id=self._instance_id, offset=start, follow=True
        )
        stream = self._connection.consoles.StreamConsoleOutput(request)
        pieces = _flood(self._file)
        written, received = next(pieces), 0
        for response in stream:
            expired = response.expired.end - response.expired.begin
            self.expired_bytes += expired
            received += len(response.data.data) + expired
            if received >= _FLOOD_BYTES:
                break
            while written < _FLOOD_BYTES and written - received <= _AHEAD_BYTES - _PIECE_BYTES:
                written = next(pieces)
        stream.cancel()

    def read_file(self) -> None:
        """Without a daemon."""
        with self._file.open("rb", buffering=0) as reader:
            reader.seek(0, os.SEEK_END)
            for _ in _flood(self._file):
                while reader.read(_MESSAGE_BYTES):
                    pass


def _flood(file: Path) -> Iterator[int]:
    """Appends piece by piece; gives how much was written so far."""
    piece = (b"virtrpc flood 0123456789abcdefghijklmnopqrstuvwxyz\r\n" * _PIECE_BYTES)[
        :_PIECE_BYTES
    ]
    with file.open("ab", buffering=0) as console:
        for written in range(_PIECE_BYTES, _FLOOD_BYTES + 1, _PIECE_BYTES):
            console.write(piece)
            yield written


def _console_file(daemon: DaemonProcess, instance_id: str) -> Path:
    return next((daemon.state_dir / "fake" / instance_id).glob("console.*.log"))
