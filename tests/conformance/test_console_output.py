"""The console log by offset, and followed: nothing lost, nothing twice."""

import re
import time
import uuid
from typing import Any

import grpc
import pytest
from virtrpc.v1 import console_pb2 as pb
from virtrpc.v1 import instance_pb2

from tests.conformance.conftest import Guest
from tests.conftest import MakeDaemon
from tests.daemon import Connection
from tests.instances import TIMEOUT_S, console_until, small_spec, spawned, succeeded
from tests.refusals import refused

READY = b"virtrpc guest ready"
COUNT = re.compile(rb"count (\d+)\r")
UNKNOWN = "00000000-0000-4000-8000-00000000dead"


def output(connection: Connection, instance_id: str, **fields: Any) -> pb.GetConsoleOutputResponse:
    request = pb.GetConsoleOutputRequest(instance_id=instance_id, **fields)
    return connection.consoles.GetConsoleOutput(request, timeout=TIMEOUT_S)


def stream(connection: Connection, instance_id: str, **fields: Any) -> Any:
    request = pb.StreamConsoleOutputRequest(instance_id=instance_id, **fields)
    return connection.consoles.StreamConsoleOutput(request, timeout=TIMEOUT_S)


def streamed(connection: Connection, instance_id: str, **fields: Any) -> bytes:
    """All bytes of a stream that ends by itself."""
    return b"".join(m.data.data for m in stream(connection, instance_id, **fields))


@pytest.fixture
def quiet_guest(connection: Connection, guest: Guest, backend: str) -> Guest:
    """The shared guest, ready, and paused so that it writes nothing more."""
    console_until(connection, guest.instance_id, READY)
    pause = instance_pb2.PauseInstanceRequest(instance_id=guest.instance_id)
    connection.instances.PauseInstance(pause, timeout=TIMEOUT_S)
    return guest


@pytest.fixture
def whole(connection: Connection, running_guest: Guest, quiet_guest: Guest) -> bytes:
    """The whole log of the guest, which is short enough to be kept in one piece.

    A paused machine still writes out what its serial port had taken from the guest.
    """
    read = streamed(connection, quiet_guest.instance_id, offset=0)
    for _ in range(20):
        time.sleep(0.2)
        before, read = read, streamed(connection, quiet_guest.instance_id, offset=0)
        if read == before:
            return read
    raise AssertionError("a paused guest writes on")


def test_log_can_be_read_in_pieces(
    connection: Connection, quiet_guest: Guest, whole: bytes
) -> None:
    read, offset = b"", 0
    while True:
        piece = output(connection, quiet_guest.instance_id, offset=offset, max_bytes=97)
        assert piece.offset == offset
        assert piece.next_offset == offset + len(piece.data)
        assert len(piece.data) <= 97
        assert (piece.end_offset, piece.expired_bytes) == (len(whole), 0)
        assert [(r.begin, r.end) for r in piece.retained] == [(0, len(whole))]
        if not piece.data:
            break
        read, offset = read + piece.data, piece.next_offset
    assert read == whole
    assert READY in whole


@pytest.mark.parametrize("tail", [0, 1, 100, 10**9])
def test_tail_of_the_log(
    connection: Connection, quiet_guest: Guest, whole: bytes, tail: int
) -> None:
    piece = output(connection, quiet_guest.instance_id, tail_bytes=tail, max_bytes=1 << 20)
    expected = whole[max(len(whole) - tail, 0) :]
    assert piece.data == expected
    assert piece.offset == len(whole) - len(expected)
    assert streamed(connection, quiet_guest.instance_id, tail_bytes=tail) == expected


def test_without_a_start_the_reply_ends_with_the_log(
    connection: Connection, quiet_guest: Guest, whole: bytes
) -> None:
    piece = output(connection, quiet_guest.instance_id, max_bytes=50)
    assert piece.data == whole[-50:]
    assert piece.next_offset == piece.end_offset


def test_end_of_the_log_has_no_bytes(
    connection: Connection, quiet_guest: Guest, whole: bytes
) -> None:
    piece = output(connection, quiet_guest.instance_id, offset=len(whole))
    assert (piece.data, piece.offset, piece.next_offset) == (b"", len(whole), len(whole))
    assert streamed(connection, quiet_guest.instance_id, offset=len(whole)) == b""


def test_offset_past_the_end_is_refused(
    connection: Connection, quiet_guest: Guest, whole: bytes
) -> None:
    for call in (output, lambda *a, **k: list(stream(*a, **k))):
        with refused(grpc.StatusCode.OUT_OF_RANGE, "OFFSET_PAST_END") as refusal:
            call(connection, quiet_guest.instance_id, offset=len(whole) + 1)
        assert refusal.metadata["end_offset"] == str(len(whole))


def test_log_has_an_id_and_another_id_is_refused(connection: Connection, guest: Guest) -> None:
    log_id = output(connection, guest.instance_id).log_id
    assert uuid.UUID(log_id)
    assert output(connection, guest.instance_id, log_id=log_id).log_id == log_id
    assert output(connection, guest.instance_id, log_id=log_id.upper()).log_id == log_id
    for call in (output, lambda *a, **k: list(stream(*a, **k))):
        with refused(grpc.StatusCode.OUT_OF_RANGE, "LOG_CHANGED") as refusal:
            call(connection, guest.instance_id, offset=0, log_id=str(uuid.uuid4()))
        assert refusal.metadata["log_id"] == log_id


def test_unknown_instance_has_no_console(connection: Connection) -> None:
    for call in (output, lambda *a, **k: list(stream(*a, **k))):
        with refused(grpc.StatusCode.NOT_FOUND, "INSTANCE_NOT_FOUND"):
            call(connection, UNKNOWN, offset=0)


def test_stream_begins_with_the_log_s_id_and_end(
    connection: Connection, quiet_guest: Guest, whole: bytes
) -> None:
    first, *rest = stream(connection, quiet_guest.instance_id, offset=0)
    assert first.heartbeat.end_offset == len(whole)
    assert first.log_id == output(connection, quiet_guest.instance_id).log_id
    assert {message.log_id for message in rest} == {""}


def test_stream_from_any_offset_gives_the_rest(
    connection: Connection, quiet_guest: Guest, whole: bytes
) -> None:
    for offset in (0, 1, len(whole) // 2, len(whole) - 1):
        assert streamed(connection, quiet_guest.instance_id, offset=offset) == whole[offset:]


def test_stream_says_that_nothing_was_written_for_a_while(
    connection: Connection, quiet_guest: Guest, whole: bytes
) -> None:
    request = pb.StreamConsoleOutputRequest(
        instance_id=quiet_guest.instance_id, now=True, follow=True
    )
    request.heartbeat.FromMilliseconds(100)
    followed = connection.consoles.StreamConsoleOutput(request, timeout=TIMEOUT_S)
    for _ in range(3):
        assert next(followed).heartbeat.end_offset == len(whole)
    followed.cancel()


def test_followers_from_any_offset_get_the_same_bytes_across_a_reboot(
    connection: Connection, running_guest: Guest, whole: bytes
) -> None:
    """The log goes on over a power cycle; a reader that was there misses nothing."""
    instance_id = running_guest.instance_id
    followers = [
        (offset, stream(connection, instance_id, offset=offset, follow=True))
        for offset in (0, len(whole) // 2, len(whole))
    ]
    reboot = instance_pb2.RebootInstanceRequest(instance_id=instance_id)
    connection.instances.RebootInstance(reboot, timeout=TIMEOUT_S)
    console_until(connection, instance_id, READY, offset=len(whole))
    pause = instance_pb2.PauseInstanceRequest(instance_id=instance_id)
    connection.instances.PauseInstance(pause, timeout=TIMEOUT_S)
    after = streamed(connection, instance_id, offset=0)
    assert after.startswith(whole)
    assert after.count(READY) == whole.count(READY) + 1
    for offset, follower in followers:
        assert followed_to(follower, offset, len(after)) == after[offset:]


def followed_to(follower: Any, offset: int, end: int) -> bytes:
    """Bytes of a stream up to an offset; each message says truly where it is."""
    read = b""
    for message in follower:
        if message.HasField("data"):
            assert message.data.offset == offset + len(read)
            read += message.data.data
        if offset + len(read) >= end:
            follower.cancel()
            return read
    raise AssertionError(f"the stream ended at {offset + len(read)}")


def test_stream_ends_when_the_instance_is_destroyed(connection: Connection, backend: str) -> None:
    with spawned(connection, small_spec(backend=backend)) as instance_id:
        follower = stream(connection, instance_id, offset=0, follow=True)
        next(follower)
        destroy = instance_pb2.DestroyInstanceRequest(instance_id=instance_id, destroy_disks=True)
        connection.instances.DestroyInstance(destroy, timeout=TIMEOUT_S)
        for _ in follower:
            pass
        assert follower.code() == grpc.StatusCode.OK


def test_instance_made_anew_under_an_id_has_another_log(
    connection: Connection, backend: str
) -> None:
    spec = small_spec(backend=backend)
    with spawned(connection, spec) as instance_id:
        first = output(connection, instance_id).log_id
        destroy = instance_pb2.DestroyInstanceRequest(instance_id=instance_id, destroy_disks=True)
        connection.instances.DestroyInstance(destroy, timeout=TIMEOUT_S)
        request = instance_pb2.SpawnInstanceRequest(instance_id=instance_id, spec=spec)
        succeeded(connection, connection.instances.SpawnInstance(request, timeout=TIMEOUT_S))
        assert output(connection, instance_id).log_id != first
        with refused(grpc.StatusCode.OUT_OF_RANGE, "LOG_CHANGED"):
            output(connection, instance_id, offset=0, log_id=first)


@pytest.mark.parametrize("backend", ["libvirt"], indirect=True)
def test_log_goes_on_while_the_daemon_is_away(make_daemon: MakeDaemon, backend: str) -> None:
    """Stopped, and then killed: the guest is not waited for, and a reader resumes where it was."""
    spec = small_spec(backend=backend)
    spec.image.kernel_args += " virtrpc.counter=1"
    daemon = make_daemon(backend=backend).start()
    with daemon.connect() as connection, spawned(connection, spec) as instance_id:
        log = console_until(connection, instance_id, b"count 3\r\n")
        for end in (daemon.stop, daemon.kill):
            end()
            daemon.start()
            with daemon.connect() as again:
                number = int(COUNT.findall(log)[-1]) + 5
                resumed = b"count %d\r\n" % number
                log += console_until(again, instance_id, resumed, offset=len(log))
        assert streamed(connection, instance_id, offset=0).startswith(log)
        assert log.count(READY) <= 1
        numbers = [int(number) for number in COUNT.findall(log)]
        assert numbers == list(range(1, len(numbers) + 1))
