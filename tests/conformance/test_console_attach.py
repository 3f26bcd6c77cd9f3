"""Attachments to serial ports: one writes, all read, nothing is lost or shown twice."""

import json
import re
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from virtrpc.v1 import console_pb2 as pb
from virtrpc.v1 import instance_pb2

from tests.attached import Attached
from tests.conformance.conftest import Guest
from tests.daemon import Connection, DaemonProcess
from tests.instances import TIMEOUT_S, console_until, destroyed, small_spec, spawned
from tests.refusals import refused

UNKNOWN = "00000000-0000-4000-8000-00000000dead"
WRITER, READER = pb.CONSOLE_MODE_WRITER, pb.CONSOLE_MODE_READER


@pytest.fixture(scope="session")
def prompt(backend: str) -> bytes:
    """What a guest shows as soon as it listens: what came before is lost on its terminal."""
    return b":~# " if backend == "libvirt" else b"virtrpc guest ready"


@pytest.fixture
def shell(connection: Connection, running_guest: Guest, prompt: bytes) -> Guest:
    """The shared guest, whose shell listens."""
    console_until(connection, running_guest.instance_id, prompt)
    return running_guest


def attached(connection: Connection, guest: Guest, **fields: Any) -> Attached:
    return Attached(connection, guest.instance_id, **fields)


def power_off(connection: Connection, guest: Guest) -> None:
    request = instance_pb2.PowerOffInstanceRequest(instance_id=guest.instance_id)
    request.timeout.FromSeconds(0)
    connection.instances.PowerOffInstance(request, timeout=TIMEOUT_S)


def console_end(connection: Connection, guest: Guest) -> int:
    request = pb.GetConsoleOutputRequest(instance_id=guest.instance_id, tail_bytes=0)
    return connection.consoles.GetConsoleOutput(request, timeout=TIMEOUT_S).end_offset


def answered(console: Attached, word: str) -> None:
    """Types a command and waits for its answer, which is on a line of its own."""
    console.type(b"echo " + word.encode() + b"\r")
    console.until(b"\n" + word.encode() + b"\r\n")


def test_writer_talks_to_the_guest_s_shell(connection: Connection, shell: Guest) -> None:
    with attached(connection, shell, mode=WRITER) as console:
        opened = console.opened()
        assert opened.writer
        assert opened.writer_identity == "local:unix"
        answered(console, "first")
        answered(console, "second")


def test_reader_sees_what_the_writer_does(connection: Connection, shell: Guest) -> None:
    with attached(connection, shell) as reader, attached(connection, shell, mode=WRITER) as writer:
        assert not reader.opened().writer
        writer.opened()
        answered(writer, "shown-to-all")
        reader.until(b"\nshown-to-all\r\n")


def test_reader_may_not_type(connection: Connection, shell: Guest) -> None:
    with attached(connection, shell, mode=READER) as reader:
        reader.opened()
        reader.type(b"x")
        with refused(grpc.StatusCode.INVALID_ARGUMENT, "NOT_WRITER"):
            list(reader.responses)


def test_reader_may_not_say_its_size(connection: Connection, shell: Guest) -> None:
    with attached(connection, shell, mode=READER) as reader:
        reader.opened()
        reader.send(pb.AttachConsoleRequest(resize=pb.ConsoleSize(columns=80, rows=24)))
        with refused(grpc.StatusCode.INVALID_ARGUMENT, "NOT_WRITER"):
            list(reader.responses)


def test_second_writer_is_refused_until_it_takes_over(connection: Connection, shell: Guest) -> None:
    with attached(connection, shell, mode=WRITER) as first:
        first.opened()
        with (
            attached(connection, shell, mode=WRITER) as second,
            refused(grpc.StatusCode.FAILED_PRECONDITION, "WRITER_PRESENT") as refusal,
        ):
            second.opened()
        assert refusal.metadata["writer_identity"] == "local:unix"
        with attached(connection, shell, mode=WRITER, takeover=True) as third:
            third.opened()
            assert first.notice("writer_lost").writer_identity == "local:unix"
            first.type(b"echo from-the-lost-one\r")
            answered(third, "taken-over")
            first.until(b"\ntaken-over\r\n")
            assert b"from-the-lost-one" not in first.text


def test_place_of_the_writer_is_free_again(connection: Connection, shell: Guest) -> None:
    with attached(connection, shell, mode=WRITER) as first:
        first.opened()
        first.half_close()
        assert first.notice("closed").reason == pb.CONSOLE_CLOSE_REASON_DETACHED
        assert list(first.responses) == []
    with attached(connection, shell, mode=WRITER) as second:
        assert second.opened().writer


def test_output_resumes_at_an_offset(connection: Connection, shell: Guest) -> None:
    with attached(connection, shell, mode=WRITER) as console:
        log_id = console.opened().log_id
        begin = console.offset
        answered(console, "before-the-break")
    offset, text = console.offset, console.text
    with attached(connection, shell, mode=WRITER, offset=offset, log_id=log_id) as console:
        assert console.opened().offset == offset
        answered(console, "after-the-break")
    with attached(connection, shell, offset=begin) as whole:
        whole.opened()
        whole.until(b"\nafter-the-break\r\n")
    assert whole.text.startswith(text + console.text)


def test_attachment_outlasts_a_power_cycle(
    connection: Connection, shell: Guest, prompt: bytes
) -> None:
    with attached(connection, shell, mode=WRITER) as console:
        console.opened()
        answered(console, "still-on")
        power_off(connection, shell)
        ends = console_end(connection, shell)
        while console.offset < ends:
            console.next()
        console.text = b""
        console.type(b"echo nobody\r")
        assert console.notice("input_dropped").dropped_bytes == len(b"echo nobody\r")
        start = instance_pb2.PowerOnInstanceRequest(instance_id=shell.instance_id)
        connection.instances.PowerOnInstance(start, timeout=TIMEOUT_S)
        console.until(prompt)
        answered(console, "on-again")


def test_attachment_ends_with_its_instance(connection: Connection, backend: str) -> None:
    with spawned(connection, small_spec(backend=backend)) as instance_id:
        console = Attached(connection, instance_id, mode=WRITER)
        console.opened()
        destroyed(connection, instance_id)
        assert console.notice("closed").reason == pb.CONSOLE_CLOSE_REASON_INSTANCE_DESTROYED
        assert list(console.responses) == []


@pytest.mark.parametrize(
    "first",
    [
        pb.AttachConsoleRequest(input=b"x"),
        pb.AttachConsoleRequest(resize=pb.ConsoleSize(columns=1, rows=1)),
    ],
    ids=["input", "resize"],
)
def test_first_message_has_to_open(connection: Connection, first: pb.AttachConsoleRequest) -> None:
    with refused(grpc.StatusCode.INVALID_ARGUMENT, "OPEN_EXPECTED"):
        list(connection.consoles.AttachConsole(iter([first]), timeout=TIMEOUT_S))


def test_nothing_at_all_is_no_attachment(connection: Connection) -> None:
    with refused(grpc.StatusCode.INVALID_ARGUMENT, "OPEN_EXPECTED"):
        list(connection.consoles.AttachConsole(iter([]), timeout=TIMEOUT_S))


def test_attachment_is_opened_once(connection: Connection, shell: Guest) -> None:
    with attached(connection, shell) as console:
        console.opened()
        again = pb.AttachConsoleOpen(instance_id=shell.instance_id)
        console.send(pb.AttachConsoleRequest(open=again))
        with refused(grpc.StatusCode.INVALID_ARGUMENT, "OPEN_EXPECTED"):
            list(console.responses)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"takeover": True}, "open"),
        ({"mode": 99}, "open.mode"),
        ({"log_id": "x"}, "open.log_id"),
        ({"size": pb.ConsoleSize(columns=0, rows=24)}, "open.size.columns"),
        ({"offset": 1 << 63}, "open.offset"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_malformed_opening_is_refused(
    connection: Connection, guest: Guest, fields: dict[str, Any], field: str
) -> None:
    with (
        attached(connection, guest, **fields) as console,
        refused(grpc.StatusCode.INVALID_ARGUMENT) as refusal,
    ):
        console.opened()
    assert refusal.fields == [field]


def test_empty_input_is_refused(connection: Connection, shell: Guest) -> None:
    with attached(connection, shell, mode=WRITER) as console:
        console.opened()
        console.type(b"")
        with refused(grpc.StatusCode.INVALID_ARGUMENT) as refusal:
            list(console.responses)
        assert refusal.fields == ["input"]


def test_unknown_instance_has_no_port(connection: Connection) -> None:
    with (
        Attached(connection, UNKNOWN, mode=WRITER) as console,
        refused(grpc.StatusCode.NOT_FOUND, "INSTANCE_NOT_FOUND"),
    ):
        console.opened()


def test_offset_past_the_end_is_refused(connection: Connection, shell: Guest) -> None:
    with (
        attached(connection, shell, offset=1 << 40) as console,
        refused(grpc.StatusCode.OUT_OF_RANGE, "OFFSET_PAST_END") as refusal,
    ):
        console.opened()
    assert refusal.fields == ["open.offset"]


@pytest.mark.parametrize("backend", ["libvirt"], indirect=True)
def test_instance_without_a_port_takes_no_input(connection: Connection, backend: str) -> None:
    spec = small_spec(backend=backend)
    spec.flavor.extra_specs["hw:serial_port_count"] = "0"
    with (
        spawned(connection, spec) as instance_id,
        Attached(connection, instance_id, mode=WRITER) as console,
    ):
        console.opened()
        console.type(b"x")
        with refused(grpc.StatusCode.FAILED_PRECONDITION, "NO_CONSOLE"):
            list(console.responses)


@pytest.fixture
def recordings(daemon: DaemonProcess) -> Iterator[Any]:
    """The directory of recordings, which is as it was after the test."""
    folder = daemon.state_dir / "recordings"
    yield folder
    for path in folder.glob("*"):
        path.unlink()
    folder.rmdir()


def test_recording_has_nothing_that_was_typed_after_a_takeover(
    connection: Connection, shell: Guest, recordings: Any
) -> None:
    with attached(connection, shell, mode=WRITER, record=True) as first:
        path = recordings / first.opened().recording
        with attached(connection, shell, mode=WRITER, takeover=True) as second:
            second.opened()
            first.notice("writer_lost")
            first.type(b"from-the-lost-one")
            first.send(pb.AttachConsoleRequest(resize=pb.ConsoleSize(columns=120, rows=40)))
            first.half_close()
            first.notice("closed")
    _, *events = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    assert not [kind for _, kind, _ in events if kind in "ir"]


def test_recording_has_what_was_typed_and_shown(
    connection: Connection, shell: Guest, recordings: Any
) -> None:
    size = pb.ConsoleSize(columns=100, rows=30)
    with attached(connection, shell, mode=WRITER, record=True, size=size) as console:
        name = console.opened().recording
        console.send(pb.AttachConsoleRequest(resize=pb.ConsoleSize(columns=120, rows=40)))
        answered(console, "for-the-record")
    path = recordings / name
    assert path.stat().st_mode & 0o777 == 0o600
    assert recordings.stat().st_mode & 0o777 == 0o700
    head, *events = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    assert (head["version"], head["width"], head["height"]) == (2, 100, 30)
    assert shell.instance_id in head["title"]
    assert [kind for _, kind, _ in events[:2]] == ["r", "i"]
    assert events[0][2] == "120x40"
    assert "".join(text for _, kind, text in events if kind == "i") == "echo for-the-record\r"
    shown = "".join(text for _, kind, text in events if kind == "o")
    assert re.search(r"\nfor-the-record\r\n", shown)
    times = [at for at, _, _ in events]
    assert times == sorted(times)
