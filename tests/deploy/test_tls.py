"""The certificates for trying it out: a daemon serves with them, and the command line calls it."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from deploy.demo.place import free_port
from tests.daemon import DaemonProcess

ISSUE = Path(__file__).resolve().parents[2] / "deploy" / "tls" / "issue"
UNAVAILABLE, PERMISSION_DENIED = 78, 71


def issue(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(ISSUE), str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)


@pytest.fixture(scope="module")
def folder(short_folder: Callable[[], Path]) -> Path:
    """One with an authority, a host and callers."""
    made = short_folder()
    for arguments in (["ca"], ["host", "localhost", "127.0.0.1"], ["client", "alice"],
                      ["client", "bob"]):  # fmt: skip
        completed = issue(made, *arguments)
        assert (completed.returncode, completed.stderr) == (0, "")
    return made


@pytest.fixture(scope="module")
def address(folder: Path, short_folder: Callable[[], Path]) -> Iterator[str]:
    """Of a daemon that knows alice as its administrator, and bob as a viewer."""
    found = f"grpcs://localhost:{free_port()}"
    arguments = [
        f"--listen={found}",
        *(f"--tls-{kind}={folder}/{name}" for kind, name in _files("host-localhost").items()),
        "--role-admin=spiffe://virtrpc.test/alice",
        "--role-viewer=spiffe://virtrpc.test/*",
    ]
    with DaemonProcess(short_folder(), backend="fake", arguments=arguments) as daemon:
        daemon.start()
        yield found


def _files(name: str) -> Mapping[str, str]:
    return {"ca": "ca.crt", "cert": f"{name}.crt", "key": f"{name}.key"}


def virtrpc(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "virtrpc.cli", *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def options(folder: Path, name: str) -> list[str]:
    return [f"--tls-{kind}={folder}/{file}" for kind, file in _files(name).items()]


def test_command_line_calls_with_flags(folder: Path, address: str) -> None:
    called = virtrpc("--address", address, *options(folder, "alice"), "host", "disable")
    assert called.returncode == 0, called.stderr
    called = virtrpc("--address", address, *options(folder, "alice"), "host", "enable")
    assert called.returncode == 0, called.stderr


def test_command_line_calls_with_its_environment(folder: Path, address: str) -> None:
    files = {
        f"VIRTRPC_TLS_{kind.upper()}": f"{folder}/{file}" for kind, file in _files("bob").items()
    }
    called = virtrpc("host", "show", VIRTRPC_ADDRESS=address, **files)
    assert called.returncode == 0, called.stderr


def test_caller_without_the_role_is_told(folder: Path, address: str) -> None:
    called = virtrpc("--address", address, *options(folder, "bob"), "host", "disable")
    assert called.returncode == PERMISSION_DENIED
    assert "spiffe://virtrpc.test/bob may not call SetHostEnabled" in called.stderr


def test_caller_without_a_certificate_is_told_what_may_be_wrong(folder: Path, address: str) -> None:
    called = virtrpc("--address", address, f"--tls-ca={folder}/ca.crt", "host", "show")
    assert called.returncode == UNAVAILABLE
    assert f"virtrpcd --listen {address} --tls-cert" in called.stderr
    assert "does not take your certificate" in called.stderr


def test_authority_is_never_replaced(folder: Path) -> None:
    before = (folder / "ca.key").read_bytes()
    assert issue(folder, "ca").returncode == 2
    assert (folder / "ca.key").read_bytes() == before


@pytest.mark.parametrize(
    "arguments", [[], ["nonsense"], ["host"], ["client", "a", "b"], ["client", "../a"]]
)
def test_wrong_usage_makes_nothing(folder: Path, arguments: list[str]) -> None:
    before = sorted(folder.iterdir())
    assert issue(folder, *arguments).returncode == 2
    assert sorted(folder.iterdir()) == before


def test_keys_are_their_owner_s_alone(folder: Path) -> None:
    assert {path.stat().st_mode & 0o077 for path in folder.glob("*.key")} == {0}
