"""A daemon that cannot serve says why in one line and ends with exit code 1."""

import socket
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import grpc
import pytest
from virtrpc.v1 import host_pb2, host_pb2_grpc

from tests.conftest import MakeDaemon
from tests.daemon import DaemonProcess

TIMEOUT_S = 30


def ended(*arguments: str, state_dir: Path) -> subprocess.CompletedProcess[str]:
    """Runs a daemon that ends by itself."""
    return subprocess.run(
        [
            *(sys.executable, "-m", "service.main", "--backend=fake", "--metrics="),
            *(f"--state-dir={state_dir}", *arguments),
        ],
        check=False,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )


def assert_refused(completed: subprocess.CompletedProcess[str], *words: str) -> None:
    """It ended with 1 and one line for people, which has these words."""
    assert completed.returncode == 1, completed
    lines = completed.stderr.splitlines()
    assert len(lines) == 1, completed.stderr
    assert lines[0].startswith("virtrpcd: ")
    for word in words:
        assert word in lines[0]


@contextmanager
def taken_port() -> Iterator[int]:
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield taken.getsockname()[1]


def serves(daemon: DaemonProcess) -> bool:
    with daemon.connect() as connection:
        reply = connection.hosts.GetHost(host_pb2.GetHostRequest(), timeout=10)
        return bool(reply.host.hostname)


@pytest.fixture
def first(make_daemon: MakeDaemon) -> DaemonProcess:
    """A daemon that serves."""
    return make_daemon("--listen=127.0.0.1:0").start()


def test_second_daemon_on_a_state_directory_is_refused(
    first: DaemonProcess, tmp_path: Path
) -> None:
    completed = ended(f"--listen=unix:{tmp_path}/other.sock", state_dir=first.state_dir)
    assert first.process is not None
    assert_refused(completed, str(first.state_dir / "lock"), f"process {first.process.pid}")
    assert serves(first)


def test_second_daemon_on_a_unix_socket_is_refused(first: DaemonProcess, tmp_path: Path) -> None:
    completed = ended(f"--listen={first.address}", state_dir=tmp_path / "state")
    assert first.process is not None
    assert_refused(completed, first.address, "in use", f"process {first.process.pid}")
    assert serves(first)


def test_daemon_on_a_taken_tcp_port_is_refused(tmp_path: Path) -> None:
    with taken_port() as port:
        completed = ended(f"--listen=127.0.0.1:{port}", state_dir=tmp_path / "state")
    assert_refused(completed, f"127.0.0.1:{port}", "in use")


def test_second_daemon_on_a_tcp_port_of_the_first_is_refused(
    make_daemon: MakeDaemon, tmp_path: Path
) -> None:
    """SO_REUSEPORT would let it share the port silently."""
    with taken_port() as free:
        pass
    first = make_daemon(f"--listen=127.0.0.1:{free}").start()
    completed = ended(f"--listen=127.0.0.1:{free}", state_dir=tmp_path / "state")
    assert_refused(completed, f"127.0.0.1:{free}")
    assert serves(first)


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0", "192.0.2.1:0", "example.org:0"])
def test_address_open_to_others_is_refused_without_insecure(address: str, tmp_path: Path) -> None:
    assert_refused(ended(f"--listen={address}", state_dir=tmp_path / "state"), "--insecure")


def test_address_open_to_others_is_served_with_insecure(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon("--listen=0.0.0.0:0", "--insecure").start()
    assert "0.0.0.0:" in daemon.log()


@pytest.mark.parametrize(
    "address",
    ["nonsense", ":0", "127.0.0.1:notaport", "127.0.0.1:99999", "unix:"],
)
def test_address_that_is_none_is_refused(address: str, tmp_path: Path) -> None:
    assert_refused(ended(f"--listen={address}", state_dir=tmp_path / "state"), address)


def test_too_long_socket_path_is_refused(tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/{'s' * 108}"
    assert_refused(ended(f"--listen={address}", state_dir=tmp_path / "state"), "107")


def test_taken_metrics_port_is_refused(tmp_path: Path) -> None:
    with taken_port() as port:
        completed = ended(
            f"--metrics=127.0.0.1:{port}",
            f"--listen=unix:{tmp_path}/s",
            state_dir=tmp_path / "state",
        )
    assert_refused(completed, f"127.0.0.1:{port}")


def test_malformed_fault_rules_are_refused(tmp_path: Path) -> None:
    completed = ended(
        "--fake-faults=spawn_instance=explode",
        f"--listen=unix:{tmp_path}/s",
        state_dir=tmp_path / "state",
    )
    assert_refused(completed, "spawn_instance=explode")


def test_unknown_backend_is_refused_and_those_installed_are_named(tmp_path: Path) -> None:
    completed = ended(
        "--backend=hyperv", f"--listen=unix:{tmp_path}/s", state_dir=tmp_path / "state"
    )
    assert_refused(completed, "hyperv", "fake", "libvirt")


def test_damaged_journal_is_refused_with_what_to_do(tmp_path: Path) -> None:
    state_dir = tmp_path / "state"
    state_dir.mkdir()
    (state_dir / "journal.sqlite").write_bytes(b"SQLite format 3\0" + b"garbage" * 1000)
    completed = ended(f"--listen=unix:{tmp_path}/s", state_dir=state_dir)
    assert_refused(completed, str(state_dir / "journal.sqlite"), "restore")


def test_journal_of_a_newer_schema_is_refused(tmp_path: Path) -> None:
    state_dir = tmp_path / "state"
    state_dir.mkdir()
    with closing(sqlite3.connect(state_dir / "journal.sqlite")) as database:
        database.execute("PRAGMA user_version = 99")
    assert_refused(ended(f"--listen=unix:{tmp_path}/s", state_dir=state_dir), "99", "newer")


def test_state_directory_that_is_a_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state"
    path.touch()
    assert_refused(ended(f"--listen=unix:{tmp_path}/s", state_dir=path), str(path))


def test_unix_socket_is_open_to_its_owner_alone(first: DaemonProcess) -> None:
    mode = Path(first.address.removeprefix("unix:")).stat().st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) & 0o177 == 0


def test_state_files_are_open_to_their_owner_alone(first: DaemonProcess) -> None:
    """What SQLite keeps beside its files included: the newest events and operations are there."""
    files = [path for path in first.state_dir.iterdir() if path.is_file()]
    assert {path.name for path in files} >= {"journal.sqlite-wal", "events.sqlite-wal", "lock"}
    modes = {path.name: oct(stat.S_IMODE(path.stat().st_mode)) for path in files}
    assert modes == dict.fromkeys(modes, oct(0o600))


def test_daemon_killed_before_leaves_nothing_in_the_way(first: DaemonProcess) -> None:
    """Locks die with the process; its socket file is taken over."""
    first.kill()
    first.start()
    assert serves(first)


def test_several_addresses_are_served_at_once(make_daemon: MakeDaemon) -> None:
    with taken_port() as free:
        pass
    daemon = make_daemon(f"--listen=127.0.0.1:{free}").start()
    assert serves(daemon)
    with grpc.insecure_channel(f"127.0.0.1:{free}") as channel:
        stub = host_pb2_grpc.HostServiceStub(channel)
        assert stub.GetHost(host_pb2.GetHostRequest(), timeout=10).host.hostname
