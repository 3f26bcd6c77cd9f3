"""The command line against the daemon itself: deletion, suspension, the guest, counters."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import pytest

from tests.clients.python.conftest import Run, command_line
from tests.daemon import DaemonProcess

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def virtrpc(make_daemon: Callable[[], DaemonProcess]) -> Run:
    """The command line against a daemon of the test's own, with an instance "web-1"."""
    served = make_daemon().start()
    run = command_line(served.address)
    spawned = run("instance", "spawn", "web-1", "--image", "guest", "--nic", "user")
    assert spawned.returncode == 0, spawned.stderr
    return run


def document(done: subprocess.CompletedProcess[str]) -> Any:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_soft_deleted_instance_comes_back_or_goes_by_its_name(virtrpc: Run) -> None:
    assert "web-1: deleted" in virtrpc("instance", "soft-delete", "web-1").stdout
    assert document(virtrpc("instance", "list", "-o", "json"))["instances"] == []
    assert virtrpc("instance", "restore", "web-1").stdout == "web-1: running\n"
    virtrpc("instance", "soft-delete", "web-1")
    found = document(virtrpc("instance", "get", "web-1", "-o", "json"))
    instance_id = found["instance"]["instance_id"]
    assert virtrpc("instance", "destroy", "web-1").stdout == "web-1: destroyed\n"
    assert "no files are here" in virtrpc("instance", "on-disk", instance_id).stdout
    assert "DestroyInstance succeeded" in virtrpc("instance", "explain", instance_id).stdout


def test_a_suspended_instance_resumes(virtrpc: Run) -> None:
    suspended = virtrpc("instance", "suspend", "web-1")
    assert suspended.stdout == "web-1: suspended\n"
    assert "SuspendInstance succeeded" in suspended.stderr
    begun = document(virtrpc("instance", "resume", "web-1", "--no-wait", "-o", "json"))
    assert virtrpc("operation", "wait", begun["operation_id"]).returncode == 0
    assert "running" in virtrpc("instance", "list").stdout


def test_what_is_not_bootable_does_not_start(virtrpc: Run) -> None:
    virtrpc("instance", "stop", "web-1", "--force")
    virtrpc("instance", "set-bootable", "web-1", "no")
    refused = virtrpc("instance", "start", "web-1")
    assert (refused.returncode, "NOT_BOOTABLE" in refused.stderr) == (73, True)
    virtrpc("instance", "set-bootable", "web-1", "yes")
    assert virtrpc("instance", "start", "web-1").stdout == "web-1: running\n"


def test_the_guest_is_reached_and_no_secret_is_told(virtrpc: Run) -> None:
    assert virtrpc("instance", "set-password", "web-1", given="s3cret\n").returncode == 0
    assert virtrpc("instance", "inject-file", "web-1", "/etc/motd", given="hello").returncode == 0
    frozen = virtrpc("instance", "quiesce", "web-1")
    assert frozen.stdout == "web-1: 1 filesystem frozen\n"
    assert virtrpc("instance", "unquiesce", "web-1").stdout == "web-1: 1 filesystem thawed\n"
    console = virtrpc("console", "log", "web-1").stdout
    assert "password of root set" in console
    assert "5 bytes written" in console
    told = virtrpc("operation", "list", "-o", "json").stdout
    assert "SetAdminPassword" in told
    assert "s3cret" not in console + told


def test_metadata_come_and_go(virtrpc: Run) -> None:
    assert virtrpc("instance", "metadata", "set", "web-1", "a=1", "b=2").stdout == "a=1\nb=2\n"
    assert virtrpc("instance", "metadata", "unset", "web-1", "a").stdout == "b=2\n"
    assert virtrpc("instance", "metadata", "get", "web-1").stdout == "b=2\n"


def test_counters_of_a_running_instance(virtrpc: Run) -> None:
    shown = document(virtrpc("diagnostics", "show", "web-1", "--fresh", "-o", "json"))
    assert shown["diagnostics"]["power_state"] == "POWER_STATE_RUNNING"
    assert virtrpc("diagnostics", "block", "web-1", "vda", "--fresh").returncode == 0
    assert virtrpc("diagnostics", "block", "web-1", "vdz").returncode == 69
    (disk,) = document(virtrpc("diagnostics", "disks", "web-1", "-o", "json"))["disks"]
    assert disk["role"] == "root"
    (held,) = document(virtrpc("diagnostics", "usage", "web-1", "-o", "json"))["instances"]
    assert held["name"] == "web-1"
    for listing in ("bandwidth", "volumes"):
        assert virtrpc("diagnostics", listing, "web-1").returncode == 0


def test_an_image_goes_in_and_comes_back(
    make_daemon: Callable[..., DaemonProcess], tmp_path: Path
) -> None:
    content = bytes(range(256)) * 4096
    source = tmp_path / "source"
    source.write_bytes(content)
    served = make_daemon(f"--image-source-dir={tmp_path}").start()
    virtrpc = command_line(served.address)
    pulled = virtrpc("image", "pull", "by-path", str(source), "--format", "raw")
    assert (pulled.returncode, pulled.stdout[:21]) == (0, "by-path: raw, 1 MiB, "), pulled.stderr
    with source.open("rb") as given:
        uploaded = virtrpc_piped(served, given, "image", "upload", "piped", "-", "--format", "raw")
    assert uploaded.returncode == 0, uploaded.stderr
    again = virtrpc("image", "upload", "piped", str(source), "--format=raw", "--compute-checksum")
    assert "was there already" in again.stdout
    piped = virtrpc_piped(served, None, "image", "download", "piped", "-", "--offset", "100")
    assert piped.stdout == content[100:]
    target = tmp_path / "target"
    assert virtrpc("image", "download", "by-path", str(target)).returncode == 0
    assert target.read_bytes() == content
    assert virtrpc("image", "delete", "by-path", "piped").returncode == 0
    assert virtrpc("image", "show", "piped").returncode == 69


def virtrpc_piped(
    served: DaemonProcess, given: IO[bytes] | None, *arguments: str
) -> subprocess.CompletedProcess[bytes]:
    """The command line with bytes on its pipes."""
    return subprocess.run(
        [sys.executable, "-m", "virtrpc.cli", "--address", served.address, *arguments],
        stdin=given,
        capture_output=True,
        timeout=60,
        check=False,
    )


def test_a_closed_host_refuses_what_is_new(virtrpc: Run) -> None:
    closed = virtrpc("host", "disable", "--reason", "full")
    assert closed.stdout == "instances: new ones are refused: full\n"
    refused = virtrpc("instance", "spawn", "web-2", "--image", "guest")
    assert (refused.returncode, "HOST_DISABLED" in refused.stderr) == (73, True)
    left = document(virtrpc("host", "maintenance", "on", "-o", "json"))["instances"]
    assert [found["error"]["reason"] for found in left] == ["NO_DESTINATION"]
    assert "in maintenance" in virtrpc("host", "show").stdout
    assert virtrpc("host", "enable").returncode == 73
    assert "full" in virtrpc("host", "maintenance", "off").stdout
    assert virtrpc("host", "enable").stdout == "instances: new ones are accepted\n"


def test_a_foreign_instance_is_adopted_by_name(virtrpc: Run) -> None:
    label = ("--label", "fake/foreign=yes")
    assert virtrpc("instance", "spawn", "legacy", "--image", "guest", *label).returncode == 0
    assert virtrpc("instance", "stop", "legacy").returncode == 73
    assert "would be adopted" in virtrpc("instance", "import", "legacy", "--validate-only").stdout
    assert virtrpc("instance", "import", "legacy").stdout.startswith("legacy is managed\n")
    assert virtrpc("instance", "stop", "legacy", "--timeout", "0").returncode == 0


def test_what_the_host_has_is_shown(virtrpc: Run) -> None:
    assert document(virtrpc("host", "resources", "--fresh", "-o", "json"))["running_instances"] == 1
    (provider,) = document(virtrpc("host", "inventory", "-o", "json"))["providers"]
    assert set(provider["inventories"]) == {"VCPU", "MEMORY_MB", "DISK_GB"}
    assert "memory" in virtrpc("host", "overhead", "--memory", "512").stdout
    aggregate = "3b241101-e2bb-4255-8caf-4136c566a962"
    assert aggregate in virtrpc("host", "aggregate", "add", aggregate, "--name", "az").stdout
    assert "az" in virtrpc("host", "show").stdout
