"""Console streams: every byte once and in order, or told as expired; nobody waits for anybody."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from virtrpc.v1 import console_pb2
from virtrpc.v1.console_pb2 import StreamConsoleOutputResponse

from backends.console_log import ConsoleLog
from tests.daemon import Connection, DaemonProcess
from tests.events.controllers import TIMEOUT_S, destroy, spawn
from tests.refusals import refusal_of

MIB = 1 << 20


class Console:
    """The console of an instance of the fake, which a test writes to as its guest would."""

    def __init__(self, daemon: DaemonProcess, instance_id: str) -> None:
        found = ConsoleLog.found_in(daemon.state_dir / "fake" / instance_id)
        assert found is not None
        self.log = found
        self.instance_id = instance_id

    def write(self, data: bytes) -> None:
        """Appends to the log."""
        with self.log.path.open("ab", buffering=0) as file:
            file.write(data)

    def stream(
        self, connection: Connection, *, heartbeat_ms: int = 60_000, **fields: object
    ) -> Iterator[StreamConsoleOutputResponse]:
        """A stream of it."""
        request = console_pb2.StreamConsoleOutputRequest(
            instance_id=self.instance_id,
            **fields,  # type: ignore[arg-type]
        )
        request.heartbeat.FromMilliseconds(heartbeat_ms)
        return connection.consoles.StreamConsoleOutput(request, timeout=TIMEOUT_S)


class Reader:
    """Puts a stream together, and holds that no byte goes missing unsaid."""

    def __init__(self, offset: int = 0) -> None:
        self.offset = offset
        self.data: list[tuple[int, bytes]] = []
        self.expired = 0

    def take(self, message: StreamConsoleOutputResponse) -> None:
        """One message."""
        if message.HasField("expired"):
            assert message.expired.begin == self.offset
            self.expired += message.expired.end - message.expired.begin
            self.offset = message.expired.end
        elif message.HasField("data"):
            assert message.data.offset == self.offset
            self.data.append((self.offset, message.data.data))
            self.offset += len(message.data.data)

    @property
    def text(self) -> bytes:
        """The bytes that came."""
        return b"".join(data for _, data in self.data)


@pytest.fixture
def console(fake: DaemonProcess, to_fake: Connection) -> Iterator[Console]:
    """A new instance's."""
    instance_id = spawn(to_fake)
    yield Console(fake, instance_id)
    destroy(to_fake, instance_id)


def test_follower_gets_what_was_written_and_what_is_being_written(
    to_fake: Connection, console: Console
) -> None:
    boot = console.log.read(0, max_bytes=MIB).data
    reader = Reader()
    for message in console.stream(to_fake, follow=True, offset=0):
        reader.take(message)
        if len(reader.data) < 20 and message.HasField("data"):
            console.write(b"line %d\n" % len(reader.data))
        if reader.text.endswith(b"line 19\n"):
            break
    assert reader.text == boot + b"".join(b"line %d\n" % number for number in range(1, 20))


def test_two_followers_get_the_same_bytes(to_fake: Connection, console: Console) -> None:
    readers = [Reader(), Reader()]
    streams = [console.stream(to_fake, follow=True, offset=0) for _ in readers]
    end = console.log.end() + 2 * MIB
    threading.Thread(target=console.write, args=(bytes(range(256)) * (2 * MIB // 256),)).start()
    for reader, stream in zip(readers, streams, strict=True):
        while reader.offset < end:
            reader.take(next(stream))
    assert readers[0].text == readers[1].text
    assert readers[0].expired == 0


def test_reader_who_is_late_is_told_what_has_expired(to_fake: Connection, console: Console) -> None:
    late = console.stream(to_fake, follow=True, offset=0)
    assert next(late).HasField("heartbeat")
    reader = Reader()
    reader.take(next(late))
    for _ in range(30):
        console.write(b"x" * MIB)
        console.log.trim()
    console.write(b"the end\n")
    while not reader.text.endswith(b"the end\n"):
        reader.take(next(late))
    assert reader.expired > 10 * MIB
    assert reader.offset == console.log.end()
    assert console.log.path.stat().st_blocks * 512 < 4 * MIB


def test_daemon_keeps_a_flooded_log_within_its_bounds(
    to_fake: Connection, console: Console
) -> None:
    follower = console.stream(to_fake, follow=True, tail_bytes=0, heartbeat_ms=200)
    console.write(b"x" * 20 * MIB)
    while console.log.path.stat().st_blocks * 512 > 4 * MIB:
        next(follower)
    reply = to_fake.consoles.GetConsoleOutput(
        console_pb2.GetConsoleOutputRequest(instance_id=console.instance_id, offset=5 * MIB),
        timeout=TIMEOUT_S,
    )
    head, tail = reply.retained
    assert (head.begin, tail.end) == (0, reply.end_offset)
    assert reply.offset == tail.begin
    assert reply.expired_bytes == tail.begin - 5 * MIB


def test_stream_without_follow_ends_where_the_log_ended_at_the_call(
    to_fake: Connection, console: Console
) -> None:
    console.write(b"x" * MIB)
    end = console.log.end()
    reader = Reader()
    stream = console.stream(to_fake, offset=0)
    reader.take(next(stream))
    console.write(b"later")
    for message in stream:
        reader.take(message)
    assert reader.offset == end


def test_stream_ends_well_when_the_instance_is_destroyed(
    to_fake: Connection, fake: DaemonProcess
) -> None:
    console = Console(fake, spawn(to_fake))
    stream = console.stream(to_fake, follow=True, offset=0)
    assert next(stream).HasField("heartbeat")
    destroy(to_fake, console.instance_id)
    reader = Reader()
    for message in stream:
        reader.take(message)
    assert b"booting" in reader.text


@pytest.mark.parametrize("flooded", [False, True], ids=["quiet", "flooded"])
def test_stop_ends_a_stream_with_the_offset_to_go_on_from(
    flooded: bool, make_daemon: Callable[..., DaemonProcess]
) -> None:
    daemon = make_daemon().start()
    with daemon.connect() as connection:
        console = Console(daemon, spawn(connection))
        reader = Reader()
        stream = console.stream(connection, follow=True, offset=0)
        while not reader.data:
            reader.take(next(stream))
        stopped = threading.Event()
        flood = threading.Thread(target=write_until, args=(console, stopped))
        if flooded:
            flood.start()
        assert daemon.process is not None
        daemon.process.terminate()
        with pytest.raises(grpc.RpcError) as ended:
            for message in stream:
                reader.take(message)
        stopped.set()
        if flooded:
            flood.join()
    assert daemon.wait() == 0, daemon.log()
    refusal = refusal_of(ended.value)
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN")
    assert int(refusal.metadata["next_offset"]) == reader.offset


def write_until(console: Console, stopped: threading.Event) -> None:
    """Writes without end; the folder goes with the daemon."""
    with console.log.path.open("ab", buffering=0) as file:
        while not stopped.is_set() and Path(file.name).exists():
            file.write(b"x" * 4096)
            stopped.wait(0.0005)
