"""`virtrpc console attach`, `vnc`, `access`: serial ports in a terminal, screens on a port."""

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from virtrpc.attachment import ConsoleAttachment
from virtrpc.cli.terminal import control_key, forward_input, without_questions
from virtrpc.resume import Backoff
from virtrpc.v1 import console_pb2 as pb

from tests.attached import Attached
from tests.clients.python.conftest import Run, command_line
from tests.clients.python.pty_terminal import Terminal
from tests.conftest import MakeDaemon
from tests.daemon import DaemonProcess

WRITER = pb.CONSOLE_MODE_WRITER
DETACH = b"\x1d"


def virtrpc(daemon: DaemonProcess, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "virtrpc.cli", "--address", daemon.address, *arguments]


def attach(daemon: DaemonProcess, *arguments: str) -> Terminal:
    return Terminal(virtrpc(daemon, "console", "attach", "web-1", *arguments))


@pytest.fixture(scope="module")
def daemon(short_folder: Callable[[], Path]) -> Iterator[DaemonProcess]:
    """A fake with an instance "web-1" that has a screen."""
    with DaemonProcess(short_folder(), backend="fake") as served:
        served.start()
        spec = command_line(served.address)(
            "instance", "spawn", "web-1", "--image", "demo", "--file", "-", given=_SPEC
        )
        assert spec.returncode == 0, spec.stderr
        yield served


_SPEC = "machine: {graphics: GRAPHICS_TYPE_VNC}\n"


@pytest.fixture
def run(daemon: DaemonProcess) -> Run:
    return command_line(daemon.address)


def test_terminal_talks_to_the_guest_until_its_key(daemon: DaemonProcess) -> None:
    with attach(daemon) as terminal:
        terminal.until(b"attached, detach with ^]")
        assert not terminal.as_before
        terminal.type(b"echo typed\r")
        terminal.until(b"\ntyped\r\n")
        terminal.type(b"\x03")  # the guest's, not ours
        terminal.type(b"\recho after-ctrl-c\r")
        terminal.until(b"\nafter-ctrl-c\r\n")
        terminal.type(DETACH)
        terminal.until(b"[detached]")
        assert terminal.exit_code() == 0
        assert terminal.as_before


def test_another_key_detaches(daemon: DaemonProcess) -> None:
    with attach(daemon, "--detach-key", "^a") as terminal:
        terminal.until(b"detach with ^a")
        terminal.type(b"echo still \x1d here\r")
        terminal.until(b"still \x1d here\r\n")
        terminal.type(b"\x01")
        terminal.until(b"[detached]")
        assert terminal.exit_code() == 0


def test_readers_type_nothing(daemon: DaemonProcess) -> None:
    with attach(daemon, "--read-only", "--tail", "4K") as reader, attach(daemon) as writer:
        reader.until(b"virtrpc guest ready")
        reader.type(b"not-for-the-guest\r")
        writer.until(b"attached")
        writer.type(b"echo for-both\r")
        writer.until(b"\nfor-both\r\n")
        assert b"not-for-the-guest" not in reader.until(b"\nfor-both\r\n")
        reader.type(DETACH)
        assert reader.exit_code() == 0


def test_second_writer_needs_to_take_over(daemon: DaemonProcess, run: Run) -> None:
    with attach(daemon) as first:
        first.until(b"attached")
        refused = run("console", "attach", "web-1")
        assert refused.returncode == 64 + 9
        assert "WRITER_PRESENT" in refused.stderr
        with attach(daemon, "--takeover") as second:
            second.until(b"attached")
            first.until(b"[local:unix has taken over: you are reading only]")
            first.type(b"lost\r")
            second.type(b"echo mine\r")
            assert b"lost" not in first.until(b"\nmine\r\n")


def test_input_from_a_pipe_is_typed_to_its_end(daemon: DaemonProcess, run: Run) -> None:
    with daemon.connect() as connection, Attached(connection, _id(run)) as reader:
        reader.opened()
        done = run("console", "attach", "web-1", given="echo from-a-pipe\n")
        assert done.returncode == 0, done.stderr
        assert done.stderr == "[attached]\n[detached]\n"
        reader.until(b"\nfrom-a-pipe\r\n")


def test_window_s_size_is_recorded(daemon: DaemonProcess) -> None:
    with attach(daemon, "--record") as terminal:
        name = terminal.until(b"]\r\n").partition(b"recorded as ")[2].rstrip(b"]\r\n").decode()
        terminal.resize(132, 50)
        terminal.type(b"echo sized\r")
        terminal.until(b"\nsized\r\n")
        terminal.type(DETACH)
        assert terminal.exit_code() == 0
    lines = (daemon.state_dir / "recordings" / name).read_text(encoding="utf-8").splitlines()
    head, *events = map(json.loads, lines)
    assert (head["width"], head["height"]) == (80, 24)
    assert "132x50" in [text for _, kind, text in events if kind == "r"]


def test_read_only_and_takeover_exclude_each_other(run: Run) -> None:
    assert run("console", "attach", "web-1", "--read-only", "--takeover").returncode == 2


@pytest.mark.parametrize(("text", "byte"), [("^]", 0x1D), ("^A", 1), ("^a", 1), ("^_", 0x1F)])
def test_control_key(text: str, byte: int) -> None:
    assert control_key(text) == bytes([byte])


@pytest.mark.parametrize("text", ["]", "^", "^1", "^]]", ""])
def test_what_is_no_control_key(text: str) -> None:
    with pytest.raises(ValueError, match="control key"):
        control_key(text)


def test_access_is_shown_once(run: Run) -> None:
    done = run("console", "access", "web-1", "-o", "json", "--lifetime", "60")
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    assert shown["type"] == "CONSOLE_TYPE_VNC"
    assert re.fullmatch(r"[\w.-]{50,}", shown["token"])
    table = run("console", "access", "web-1", "--type", "rdp").stdout
    assert re.search(r"^port +3389$", table, re.MULTILINE)
    assert run("console", "access", "web-1", "--validate-only").stdout.split() == []
    no_page = run("console", "access", "web-1", "--url")
    assert (no_page.returncode, "--http" in no_page.stderr) == (1, True)


def test_pool_is_shown(run: Run) -> None:
    assert re.search(r"^username +fake-vnc$", run("console", "pool").stdout, re.MULTILINE)


def test_port_for_viewers_carries_a_connection(daemon: DaemonProcess) -> None:
    command = virtrpc(daemon, "console", "vnc", "web-1", "--once")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as tunnel:
        assert tunnel.stdout is not None
        host, _, port = tunnel.stdout.readline().strip().partition(":")
        sent = bytes(range(256)) * 2048
        with socket.create_connection((host, int(port)), timeout=20) as viewer:
            reader = viewer.makefile("rb")
            assert reader.read(12) == b"RFB 003.008\n"
            viewer.sendall(sent)
            assert reader.read(len(sent)) == sent
            viewer.shutdown(socket.SHUT_WR)
            assert reader.read() == b""
        assert tunnel.wait(20) == 0


def test_no_port_is_opened_for_what_there_is_not(run: Run) -> None:
    refused = run("console", "spice", "web-1")
    assert (refused.returncode, refused.stdout) == (64 + 9, "")
    assert "NO_CONSOLE" in refused.stderr


def test_key_ends_the_wait_for_a_daemon_that_is_away(make_daemon: MakeDaemon) -> None:
    served = make_daemon().start()
    spawned_by = command_line(served.address)("instance", "spawn", "web-1", "--image", "demo")
    assert spawned_by.returncode == 0, spawned_by.stderr
    with attach(served) as terminal:
        terminal.until(b"attached")
        served.kill()
        for pause in (b"0.1 s", b"0.2 s", b"0.4 s", b"0.8 s", b"1.6 s"):
            terminal.until(b"connection lost, trying again in " + pause)
        terminal.type(DETACH)
        terminal.until(b"[detached]")
        assert terminal.exit_code() == 0
        assert terminal.as_before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_terminal_is_restored_when_it_is_told_to_end(
    daemon: DaemonProcess, number: signal.Signals
) -> None:
    with attach(daemon) as terminal:
        terminal.until(b"attached")
        terminal.process.send_signal(number)
        assert terminal.exit_code() == 128 + number
        assert terminal.as_before


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_as_empty_ones(daemon: DaemonProcess, closed: str) -> None:
    command = shlex.join(virtrpc(daemon, "console", "attach", "web-1"))
    done = subprocess.run(
        ["sh", "-c", f"exec {command} </dev/null {closed}"],
        check=False,
        capture_output=True,
        timeout=30,
    )
    assert done.returncode == 0
    assert b"Traceback" not in done.stderr


def test_questions_of_old_output_are_not_asked_again(daemon: DaemonProcess) -> None:
    """Busybox' shell asks where the cursor is at every prompt; the answer would be typed."""
    asks = b"\x1b[6n"
    with attach(daemon) as terminal:
        terminal.until(b"attached")
        terminal.type(b"echo old" + asks + b"question\r")
        assert asks in terminal.until(b"question\r\n")
        terminal.until(b"question\r\n")
        terminal.type(DETACH)
        terminal.until(b"[detached]")
    with attach(daemon, "--tail", "4K") as terminal:
        shown = terminal.until(b"\noldquestion\r\n")
        assert asks not in shown
        terminal.type(b"echo new" + asks + b"question\r")
        assert asks in terminal.until(b"question\r\n")


@pytest.mark.parametrize(
    "question",
    [
        *(
            "\x1b[c",
            "\x1b[0c",
            "\x1b[>c",
            "\x1b[=c",
            "\x1b[5n",
            "\x1b[6n",
            "\x1b[?6n",
            "\x1bZ",
            "\x05",
        ),
        *("\x1b[?2026$p", "\x1b[>q", "\x1b[>0q", "\x1b[18t", "\x1b[21t", "\x1b]11;?\x07"),
        *("\x1b]4;1;?\x1b\\", "\x1bP+q544e\x1b\\", "\x1bP$qm\x1b\\"),
    ],
    ids=ascii,
)
def test_all_questions_that_terminals_answer_are_left_out(question: str) -> None:
    assert without_questions(b"a" + question.encode() + b"b") == b"ab"


@pytest.mark.parametrize(
    "kept", ["\x1b[31mred\x1b[0m", "\x1b[2J\x1b[10;20H", "\x1b]0;title\x07", "\x1b[8;24;80t"]
)
def test_what_asks_nothing_stays(kept: str) -> None:
    assert without_questions(kept.encode()) == kept.encode()


class _Deaf:
    """A stream whose other end takes nothing and says nothing after its first message."""

    def __init__(self, _requests: object) -> None:
        self._messages = iter([pb.AttachConsoleResponse(opened=pb.AttachConsoleOpened())])
        self._cancelled = threading.Event()

    def __iter__(self) -> Iterator[pb.AttachConsoleResponse]:
        yield from self._messages
        self._cancelled.wait(20)

    def cancel(self) -> None:
        self._cancelled.set()


def test_key_works_before_a_guest_that_takes_no_input(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    attachment = ConsoleAttachment(
        _Deaf, pb.AttachConsoleOpen(mode=WRITER), backoff=Backoff(), on_retry=None
    )
    messages = iter(attachment)
    assert next(messages).HasField("opened")
    ours, theirs = os.pipe()
    with os.fdopen(ours) as keys, os.fdopen(theirs, "wb") as keyboard:
        monkeypatch.setattr(sys, "stdin", keys)
        typing = forward_input(attachment, detach_key=DETACH)
        keyboard.write(b"x" * 4096 * 70 + DETACH)
        keyboard.flush()
        typing.join(20)
    assert not typing.is_alive()
    assert attachment.detached
    assert list(messages) == []
    assert "the guest takes no input" in capsys.readouterr().err


def _id(run: Run) -> str:
    found = json.loads(run("instance", "get", "web-1", "-o", "json").stdout)
    instance_id: str = found["instance"]["instance_id"]
    return instance_id
