"""Options of TLS on the command line, where nothing is called; calls are in tests/deploy."""

from pathlib import Path

import pytest
from virtrpc import tls_credentials
from virtrpc.cli.root import run

from deploy.demo.place import free_port
from tests.clients.python.conftest import Cli
from tests.clients.python.scripted import ScriptedDaemon

WRONG_USAGE, UNAVAILABLE = 2, 78


@pytest.mark.parametrize("flag", ["--tls-ca", "--tls-cert", "--tls-key"])
def test_flag_for_an_address_without_tls_is_refused(
    flag: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Else a call that was meant to be by TLS would go without."""
    file = tmp_path / "file"
    file.touch()
    assert run(["--address", "127.0.0.1:1", flag, str(file), "host", "show"]) == WRONG_USAGE
    assert flag in capsys.readouterr().err


async def test_environment_for_an_address_without_tls_is_left_alone(
    cli: Cli, daemon: ScriptedDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("CA", "CERT", "KEY"):
        monkeypatch.setenv(f"VIRTRPC_TLS_{name}", "/nonexistent")
    assert (await cli("host", "show")).code != WRONG_USAGE


def test_missing_file_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--address", "grpcs://127.0.0.1:1", "--tls-ca", "/nonexistent", "host", "show"]
    assert run(arguments) == WRONG_USAGE
    assert "/nonexistent" in capsys.readouterr().err


@pytest.mark.parametrize("alone", ["--tls-cert", "--tls-key"])
def test_certificate_and_key_are_given_together(
    alone: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "file"
    file.touch()
    assert run(["--address", "grpcs://127.0.0.1:1", alone, str(file), "host", "show"]) == 2
    assert "together" in capsys.readouterr().err


def test_library_reads_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        tls_credentials(ca=tmp_path / "none")
    with pytest.raises(ValueError, match="together"):
        tls_credentials(cert=tmp_path / "none")


def test_daemon_beyond_loopback_is_said_to_be_served_by_tls(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The daemon refuses plaintext there. This address leads to loopback, and is none of it."""
    address = f"0.0.0.0:{free_port()}"
    assert run(["--address", address, "host", "show"]) == UNAVAILABLE
    assert f"virtrpcd --listen grpcs://{address}" in capsys.readouterr().err
