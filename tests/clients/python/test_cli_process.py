"""The command line as a process: signals, pipes, terminals."""

import asyncio
import fcntl
import os
import pty
import re
import signal
import struct
import sys
import termios
from collections.abc import AsyncIterator
from typing import Any

import pytest
from google.protobuf.any_pb2 import Any as Packed
from virtrpc.v1 import console_pb2 as console
from virtrpc.v1.event_pb2 import Event, EventCursor, EventType, WatchEventsResponse
from virtrpc.v1.instance_pb2 import Instance, ListInstancesResponse, SetAdminPasswordResponse
from virtrpc.v1.operation_pb2 import Operation, OperationState, WatchOperationResponse
from virtrpc.v1.types_pb2 import PowerState

from tests.clients.python.scripted import ScriptedDaemon
from tests.clients.python.threads import in_thread

pytestmark = pytest.mark.timeout(60)
WEB_1 = "3b241101-e2bb-4255-8caf-4136c566a962"
OPERATION = "5f0c0d5e-0000-4000-8000-000000000007"
PIPE = asyncio.subprocess.PIPE


async def started(
    daemon: ScriptedDaemon, *arguments: str, **options: Any
) -> asyncio.subprocess.Process:
    command = (sys.executable, "-m", "virtrpc.cli", "--address", daemon.address, *arguments)
    options = {"stdout": PIPE, "stderr": PIPE, **options}
    return await asyncio.create_subprocess_exec(*command, **options)


async def line_of(stream: asyncio.StreamReader | None) -> str:
    assert stream is not None
    return (await stream.readline()).decode()


async def on_terminal(daemon: ScriptedDaemon, *arguments: str) -> str:
    """What the command shows on a terminal of 80 columns."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    environment = {**os.environ, "TERM": "xterm"}
    environment.pop("COLUMNS", None)
    process = await started(
        daemon, *arguments, stdin=slave, stdout=slave, stderr=slave, env=environment
    )
    os.close(slave)
    shown = await in_thread(_read_all, master)
    os.close(master)
    assert await process.wait() == 0
    return shown.replace("\r\n", "\n")


def _read_all(descriptor: int) -> str:
    content = b""
    while True:
        try:
            piece = os.read(descriptor, 65536)
        except OSError:  # EIO: the last process has closed the terminal
            return content.decode()
        if not piece:
            return content.decode()
        content += piece


def _read_until(descriptor: int, end: bytes) -> bytes:
    content = b""
    while not content.endswith(end):
        content += os.read(descriptor, 65536)
    return content


def plain(shown: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown)


def spawning(daemon: ScriptedDaemon, *, ends: bool) -> None:
    packed = Packed()
    packed.Pack(Instance(instance_id=WEB_1, name="web-1"))

    async def watch(_request: object) -> AsyncIterator[WatchOperationResponse]:
        running = Operation(
            operation_id=OPERATION,
            verb="SpawnInstance",
            state=OperationState.OPERATION_STATE_RUNNING,
            phase="disks",
            progress_percent=40,
        )
        yield WatchOperationResponse(operation=running)
        if not ends:
            await asyncio.get_running_loop().create_future()
        succeeded = Operation(
            operation_id=OPERATION,
            state=OperationState.OPERATION_STATE_SUCCEEDED,
            done=True,
            result=packed,
        )
        yield WatchOperationResponse(operation=succeeded)

    daemon.answer("SpawnInstance", lambda _: Operation(operation_id=OPERATION))
    daemon.answer("WatchOperation", watch)


async def test_ctrl_c_detaches_from_an_operation_and_says_how_to_find_it(
    daemon: ScriptedDaemon,
) -> None:
    spawning(daemon, ends=False)
    process = await started(daemon, "instance", "spawn", "web-1")
    assert "running disks" in await line_of(process.stderr)
    process.send_signal(signal.SIGINT)
    out, err = await process.communicate()
    assert process.returncode == 130
    assert err.decode().splitlines() == [
        f"detached: operation {OPERATION} goes on",
        f"  watch it:  virtrpc operation watch {OPERATION}",
        f"  cancel it: virtrpc operation cancel {OPERATION}",
    ]
    assert out == b""
    assert "CancelOperation" not in daemon.requests


async def test_ctrl_c_during_a_change_exits_130_without_a_traceback(
    daemon: ScriptedDaemon,
) -> None:
    begun = asyncio.Event()

    async def never() -> None:
        begun.set()
        await asyncio.get_running_loop().create_future()

    daemon.answer("PowerOffInstance", lambda _: never())
    process = await started(daemon, "instance", "stop", WEB_1)
    await begun.wait()
    process.send_signal(signal.SIGINT)
    _out, err = await process.communicate()
    assert process.returncode == 130
    assert err.decode() == (
        f"given up: what was begun goes on\n  look: virtrpc operation list --instance {WEB_1}\n"
    )


async def test_ctrl_c_ends_a_watch_with_the_cursor_to_resume_from(daemon: ScriptedDaemon) -> None:
    async def watch(_request: object) -> AsyncIterator[WatchEventsResponse]:
        for sequence in (6, 7):
            cursor = EventCursor(epoch="e", sequence=sequence)
            type_ = EventType.EVENT_TYPE_STARTED
            yield WatchEventsResponse(event=Event(cursor=cursor, type=type_))
        await asyncio.get_running_loop().create_future()

    daemon.answer("WatchEvents", watch)
    process = await started(daemon, "event", "watch")
    for _ in range(2):
        assert "started" in await line_of(process.stdout)
    process.send_signal(signal.SIGINT)
    _out, err = await process.communicate()
    assert process.returncode == 130
    # The last one may have been on its way out: better shown twice than never.
    assert err.decode() in {f"resume with --after e:{sequence}\n" for sequence in (6, 7)}


async def test_a_reader_that_goes_away_is_no_error_to_speak_of(daemon: ScriptedDaemon) -> None:
    line_bytes = b"x" * 4096

    def stream(_request: object) -> Any:
        for index in range(2000):
            data = console.ConsoleData(offset=index * len(line_bytes), data=line_bytes)
            yield console.StreamConsoleOutputResponse(data=data)

    daemon.answer("StreamConsoleOutput", stream)
    read, write = os.pipe()
    process = await started(daemon, "console", "follow", WEB_1, stdout=write)
    os.close(write)
    await in_thread(os.read, read, 10)
    os.close(read)
    _out, err = await process.communicate()
    assert (process.returncode, err) == (141, b"")


async def test_a_reader_that_leaves_before_a_document_is_no_error_either(
    daemon: ScriptedDaemon,
) -> None:
    daemon.answer("ListInstances", lambda _: ListInstancesResponse())
    read, write = os.pipe()
    os.close(read)
    process = await started(daemon, "instance", "list", stdout=write)
    os.close(write)
    _out, err = await process.communicate()
    assert (process.returncode, err) == (141, b"")


@pytest.mark.parametrize(
    "command", [("instance", "list"), ("instance", "list", "-o", "json"), ("--help",)]
)
async def test_output_that_cannot_be_written_is_told_in_a_line(
    daemon: ScriptedDaemon, command: tuple[str, ...]
) -> None:
    daemon.answer("ListInstances", lambda _: ListInstancesResponse())
    full = os.open("/dev/full", os.O_WRONLY)
    process = await started(daemon, *command, stdout=full)
    os.close(full)
    _out, err = await process.communicate()
    assert (process.returncode, err) == (1, b"error: No space left on device\n")


async def test_argument_that_is_not_utf_8_is_a_usage_error(daemon: ScriptedDaemon) -> None:
    process = await started(daemon, "instance", "spawn", os.fsdecode(b"\xff"), stderr=PIPE)
    _out, err = await process.communicate()
    assert process.returncode == 2
    assert b"is not valid UTF-8" in err


async def test_console_bytes_pass_unchanged(daemon: ScriptedDaemon) -> None:
    every = bytes(range(256)) + b"\r\n\xff\xfe"
    daemon.answer(
        "GetConsoleOutput",
        lambda _: console.GetConsoleOutputResponse(
            data=every, next_offset=len(every), end_offset=len(every)
        ),
    )
    process = await started(daemon, "console", "log", WEB_1)
    out, err = await process.communicate()
    assert (out, err) == (every, b"")


async def test_a_table_fits_80_columns_and_keeps_ids_whole(daemon: ScriptedDaemon) -> None:
    long_name = "a-name-that-is-much-too-long-for-what-is-left-of-the-line-" + "n" * 40
    found = Instance(
        instance_id=WEB_1,
        name=long_name,
        power_state=PowerState.POWER_STATE_RUNNING,
        memory_kib=1024 * 1024,
        labels={"a": "b"},
    )
    daemon.answer("ListInstances", lambda _: ListInstancesResponse(instances=[found]))
    shown = await on_terminal(daemon, "instance", "list")
    lines = plain(shown).splitlines()
    assert max(len(line) for line in lines) <= 80
    assert lines[0].split() == ["ID", "NAME", "STATE", "VCPUS", "MEMORY"]
    assert lines[1].startswith(WEB_1)
    names = "".join(line[38:].split()[0] for line in lines[1:])
    assert names == long_name
    assert "\x1b[32m" in shown  # running is green


async def test_progress_is_live_on_a_terminal(daemon: ScriptedDaemon) -> None:
    spawning(daemon, ends=True)
    shown = await on_terminal(daemon, "instance", "spawn", "web-1")
    assert "SpawnInstance running disks" in plain(shown)
    assert "40 %" in plain(shown)
    assert plain(shown).splitlines()[-1].strip().endswith(f"web-1 {WEB_1}")


async def test_a_password_is_asked_for_twice_and_never_shown(daemon: ScriptedDaemon) -> None:
    daemon.answer("SetAdminPassword", lambda _: SetAdminPasswordResponse())
    master, slave = pty.openpty()
    arguments = ("instance", "set-password", WEB_1)
    # In a session of its own it has no other terminal to ask on.
    process = await started(
        daemon, *arguments, stdin=slave, stdout=slave, stderr=slave, start_new_session=True
    )
    os.close(slave)
    shown = await in_thread(_read_until, master, b"New password: ")
    os.write(master, b"s3cret\n")
    shown += await in_thread(_read_until, master, b"confirmation: ")
    os.write(master, b"s3cret\n")
    shown += (await in_thread(_read_all, master)).encode()
    os.close(master)
    assert await process.wait() == 0
    assert daemon.requests["SetAdminPassword"][0].password == "s3cret"  # noqa: S105 - the test's
    assert shown.endswith(b"password set\r\n")
    assert b"s3cret" not in shown


async def test_a_file_is_not_awaited_from_a_terminal(daemon: ScriptedDaemon) -> None:
    master, slave = pty.openpty()
    process = await started(daemon, "instance", "inject-file", WEB_1, "/etc/motd", stdin=slave)
    _out, err = await process.communicate()
    os.close(slave)
    os.close(master)
    assert (process.returncode, b"standard input" in err) == (2, True)


async def test_a_shell_completes_the_names_of_instances(daemon: ScriptedDaemon) -> None:
    daemon.answer(
        "ListInstances",
        lambda _: ListInstancesResponse(
            instances=[Instance(instance_id=WEB_1, name=name) for name in ("web-1", "db-1")]
        ),
    )
    words = f"virtrpc --address {daemon.address} instance get we"
    environment = {
        **os.environ,
        "_VIRTRPC_COMPLETE": "bash_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": "5",
    }
    process = await started(daemon, env=environment)
    out, _err = await process.communicate()
    assert out == b"plain,web-1\n"


async def test_a_shell_completes_nothing_while_nobody_answers(daemon: ScriptedDaemon) -> None:
    environment = {
        **os.environ,
        "_VIRTRPC_COMPLETE": "bash_complete",
        "COMP_WORDS": f"virtrpc --address {daemon.address}.none instance get we",
        "COMP_CWORD": "5",
    }
    process = await started(daemon, env=environment)
    out, err = await process.communicate()
    assert (out.strip(), err) == (b"", b"")
