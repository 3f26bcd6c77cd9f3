"""The embedded driver's folder, and the orphans that the daemon takes in."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

import pytest

from backends.libvirt.embedded import EmbeddedRoot, is_embedded
from backends.libvirt.starts import pid_folder, started_at_ns

LONGEST_SOCKET_ADDRESS = 107  # unix(7)
LONGEST_NAME = "a" * 20  # libvirt shortens longer ones in the names of its folders
SOCKETS = (
    f"lib/qemu/domain-99999-{LONGEST_NAME}/monitor.sock",
    f"lib/qemu/channel/target/domain-99999-{LONGEST_NAME}/org.qemu.guest_agent.0",
)
PROGRAM_TIMEOUT_S = 60


@pytest.fixture
def deep_folder(tmp_path: Path) -> Path:
    """Too deep for the sockets below it."""
    return tmp_path / ("d" * 60) / "libvirt"


def folder_in(uri: str) -> Path:
    """The root that libvirt is told."""
    return Path(parse_qs(urlsplit(uri).query)["root"][0])


@pytest.mark.parametrize(
    ("uri", "embedded"),
    [
        ("qemu:///embed", True),
        ("qemu:///embed?root=/srv/guests", True),
        ("qemu:///system", False),
        ("qemu:///session", False),
        ("test:///default", False),
        ("qemu+tcp://192.0.2.1/system", False),
    ],
)
def test_embedded_driver_is_known_by_its_uri(uri: str, embedded: bool) -> None:
    assert is_embedded(uri) == embedded


def test_folder_is_made_with_the_drivers_configuration(tmp_path: Path) -> None:
    root = EmbeddedRoot("qemu:///embed", default=tmp_path / "a" / "libvirt")
    assert root.folder == tmp_path / "a" / "libvirt"
    configuration = (root.folder / "etc" / "qemu.conf").read_text(encoding="ascii")
    assert 'stdio_handler = "file"' in configuration.splitlines()
    root.close()


def test_configuration_is_written_anew_at_every_start(tmp_path: Path) -> None:
    for _ in range(2):
        EmbeddedRoot("qemu:///embed", default=tmp_path).close()
        path = tmp_path / "etc" / "qemu.conf"
        assert "stdio_handler" in path.read_text(encoding="ascii")
        path.write_text("", encoding="ascii")


def test_folder_of_the_uri_comes_before_the_default(tmp_path: Path) -> None:
    asked = tmp_path / "own & root?"
    root = EmbeddedRoot(f"qemu:///embed?root={quote(str(asked))}", default=tmp_path / "default")
    assert root.folder == asked
    assert folder_in(root.uri).resolve() == asked
    assert not (tmp_path / "default").exists()
    root.close()


def test_short_folder_is_opened_as_it_is(short_folder: Callable[[], Path]) -> None:
    root = EmbeddedRoot("qemu:///embed", default=short_folder())
    assert folder_in(root.uri) == root.folder
    root.close()


def test_sockets_have_addresses_however_deep_the_folder(short_folder: Callable[[], Path]) -> None:
    above = short_folder()
    for length in range(1, LONGEST_SOCKET_ADDRESS):
        root = EmbeddedRoot("qemu:///embed", default=above / ("d" * length))
        told = folder_in(root.uri)
        assert told.resolve() == root.folder
        assert all(len(f"{told}/{socket}") <= LONGEST_SOCKET_ADDRESS for socket in SOCKETS)
        root.close()


def test_link_to_a_deep_folder_goes_when_the_driver_is_closed(deep_folder: Path) -> None:
    root = EmbeddedRoot("qemu:///embed", default=deep_folder)
    link = folder_in(root.uri)
    assert link.is_symlink()
    root.close()
    assert not link.is_symlink()
    assert (deep_folder / "etc" / "qemu.conf").exists()


def test_link_that_a_killed_daemon_left_is_taken_over(deep_folder: Path) -> None:
    left = EmbeddedRoot("qemu:///embed", default=deep_folder)
    root = EmbeddedRoot("qemu:///embed", default=deep_folder)
    assert folder_in(root.uri) == folder_in(left.uri)
    assert folder_in(root.uri).resolve() == deep_folder
    root.close()


def test_log_of_a_domain_is_removed_and_no_other(tmp_path: Path) -> None:
    root = EmbeddedRoot("qemu:///embed", default=tmp_path)
    logs = tmp_path / "log" / "qemu"
    root.remove_log("nobody")
    logs.mkdir(parents=True)
    for name in ("web-1.log", "web-11.log"):
        (logs / name).touch()
    root.remove_log("web-1")
    assert [path.name for path in logs.iterdir()] == ["web-11.log"]
    root.close()


@pytest.mark.parametrize(
    ("uri", "folder"),
    [
        ("qemu:///embed?root=/srv/a%20b", "/srv/a b/run/qemu"),
        ("qemu:///system", "/run/libvirt/qemu"),
        ("qemu+unix:///system?socket=/x", "/run/libvirt/qemu"),
        ("qemu:///session", "/run/user/7/libvirt/qemu/run"),
        ("qemu+tcp://192.0.2.1/system", None),
        ("test:///default", None),
    ],
)
def test_folder_of_process_ids_is_known_by_the_uri(
    uri: str, folder: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/7")
    assert pid_folder(uri) == (None if folder is None else Path(folder))


def test_machine_without_a_file_has_no_known_start(tmp_path: Path) -> None:
    assert started_at_ns(tmp_path, "web-1") is None
    assert started_at_ns(None, "web-1") is None


def reaping(mode: str) -> dict[str, object]:
    """What a process with a reaper of its own has seen."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.libvirt.reaping", mode],
        check=True,
        stdout=subprocess.PIPE,
        timeout=PROGRAM_TIMEOUT_S,
    )
    seen: dict[str, object] = json.loads(done.stdout)
    return seen


def test_reaper_leaves_exit_codes_to_those_who_wait_for_them() -> None:
    seen = reaping("statuses")
    assert seen["got"] == seen["wanted"]


def test_orphans_are_reaped_beside_a_child_that_nobody_waits_for() -> None:
    assert reaping("orphans") == {"left": 0, "unwaited": 0}
