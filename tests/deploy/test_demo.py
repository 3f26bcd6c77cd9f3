"""`make run`, as its user sees it."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[2]
BOOT_S = 90.0
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def folder(short_folder: Callable[[], Path]) -> Path:
    """Where the demonstration keeps its files; it makes and removes it."""
    return short_folder() / "run"


@pytest.fixture
def start(folder: Path, tmp_path: Path) -> Iterator[Start]:
    """Starts the demonstration; without QEMU on its PATH if `backend` is the fake."""
    started = []
    (tmp_path / "setpriv").symlink_to(str(shutil.which("setpriv")))

    def begin(*arguments: str, backend: str = "fake") -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "deploy.demo", f"--folder={folder}", *arguments]
        path = os.environ["PATH"] if backend == "libvirt" else str(tmp_path)
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, "PATH": path},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        process.terminate()
        process.communicate(timeout=BOOT_S)


def until(process: subprocess.Popen[str], words: str) -> list[str]:
    """Its lines up to the one with these words."""
    assert process.stdout is not None
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line)
        if words in line:
            return lines
    raise AssertionError("".join(lines))


def processes_at(folder: Path) -> list[str]:
    every = psutil.process_iter(["cmdline"])
    lines = (" ".join(process.info["cmdline"] or ()) for process in every)
    return [line for line in lines if str(folder) in line]


def test_once_shows_what_streams_back_and_leaves_nothing(
    backend: str, start: Start, folder: Path
) -> None:
    process = start("--once", backend=backend)
    output, _ = process.communicate(timeout=BOOT_S)
    assert process.returncode == 0, output
    starts = [line.split()[:2] for line in output.splitlines() if line.strip()]
    for shown in (["event|", "STARTED"], ["event|", "DELETED"], ["operation|", "SpawnInstance"]):
        assert shown in starts, output
    assert "virtrpc guest ready" in output
    assert not folder.exists()
    assert processes_at(folder) == []


def test_the_simulated_hypervisor_is_announced_in_one_line(start: Start) -> None:
    output, _ = start("--once").communicate(timeout=BOOT_S)
    assert "a simulated hypervisor, for want of qemu-system-x86_64" in output.splitlines()[0]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_until_it_is_stopped(start: Start, folder: Path, number: signal.Signals) -> None:
    process = start()
    lines = until(process, "with reflection")
    export = next(line.split()[1] for line in lines if "export VIRTRPC_ADDRESS" in line)
    listed = subprocess.run(
        [Path(sys.executable).with_name("virtrpc"), "instance", "list"],
        env={**os.environ, "VIRTRPC_ADDRESS": export.partition("=")[2]},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "demo" in listed.stdout
    process.send_signal(number)
    output, _ = process.communicate(timeout=BOOT_S)
    assert process.returncode == 0, output
    assert not folder.exists()
    assert processes_at(folder) == []


def test_ctrl_c_before_anything_has_begun_just_ends_it(
    start: Start, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONVERBOSE", "1")
    process = start()
    until(process, "import 'grpc'")
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=BOOT_S)
    assert process.returncode == -signal.SIGINT
    assert "Traceback" not in output
    assert not folder.exists()


def test_ctrl_c_while_the_daemon_starts_leaves_nothing(start: Start, folder: Path) -> None:
    process = start()
    until(process, "virtrpcd on")
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=BOOT_S)
    assert process.returncode == 0, output
    assert "nothing is left behind" in output
    assert processes_at(folder) == []


def test_a_guest_that_does_not_speak_in_time_is_a_failure(start: Start, folder: Path) -> None:
    process = start("--once", "--timeout=0.01")
    output, _ = process.communicate(timeout=BOOT_S)
    assert process.returncode == 1
    assert "not done after 0 s" in output
    assert processes_at(folder) == []


def test_a_daemon_that_cannot_start_is_shown_with_its_log(start: Start, folder: Path) -> None:
    (folder / "state").mkdir(parents=True)
    (folder / "state" / "journal.sqlite").write_bytes(b"no database")
    process = start("--once")
    output, _ = process.communicate(timeout=BOOT_S)
    assert process.returncode == 1
    assert "virtrpcd: " in output
    assert output.endswith("run: virtrpcd has ended with code 1\n")


def test_a_second_run_in_the_same_folder_leaves_the_first_alone(start: Start) -> None:
    first = start()
    until(first, "with reflection")
    second = start("--once")
    output, _ = second.communicate(timeout=BOOT_S)
    assert second.returncode == 1
    assert "another run is on" in output
    first.send_signal(signal.SIGINT)
    assert "DELETED demo" in first.communicate(timeout=BOOT_S)[0]


def test_what_a_killed_run_has_left_is_cleared_by_the_next(
    backend: str, start: Start, folder: Path
) -> None:
    first = start(backend=backend)
    until(first, "with reflection")
    first.kill()
    first.wait()
    output, _ = start("--once", backend=backend).communicate(timeout=BOOT_S)
    assert "nothing is left behind" in output
    assert processes_at(folder) == []
