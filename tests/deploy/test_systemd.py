"""The systemd unit, judged by systemd's own tools."""

import configparser
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
UNIT = ROOT / "deploy" / "systemd" / "virtrpcd.service"
CONSOLES = UNIT.with_name("virtrpcd-consoles.service")
PROGRAM = "/opt/virtrpc/bin/virtrpcd"
# 0 is a service that can do nothing; libvirtd, which has the same work, has 96.
EXPOSURE = 58
CONSOLES_EXPOSURE = 16


class Unit(configparser.RawConfigParser):
    """A unit file; of a repeated key the last value counts."""

    def __init__(self) -> None:
        super().__init__(strict=False)
        self.read(UNIT, encoding="utf-8")

    def optionxform(self, optionstr: str) -> str:
        return optionstr


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = ["systemd-analyze", "--no-pager", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("unit", [UNIT, CONSOLES], ids=lambda unit: unit.stem)
def test_the_unit_is_valid(tmp_path: Path, unit: Path) -> None:
    text = unit.read_text(encoding="utf-8")
    for program in (PROGRAM, "/opt/virtrpc/bin/python"):
        text = text.replace(program, str(shutil.which("true")))
    copy = tmp_path / unit.name
    copy.write_text(text)
    verdict = analyze("verify", "--recursive-errors=no", copy)
    assert verdict.returncode == 0, verdict.stderr
    assert "Unknown" not in verdict.stderr
    assert "Failed to parse" not in verdict.stderr


@pytest.mark.parametrize(("unit", "most"), [(UNIT, EXPOSURE), (CONSOLES, CONSOLES_EXPOSURE)])
def test_the_service_is_hardened(unit: Path, most: int) -> None:
    verdict = analyze("security", "--offline=yes", f"--threshold={most}", unit)
    assert verdict.returncode == 0, verdict.stdout.splitlines()[-1:]


def test_guests_outlive_a_restart() -> None:
    """Only the daemon itself is stopped, and it may have control groups for its guests."""
    service = Unit()["Service"]
    assert service["KillMode"] == "process"
    assert service["Delegate"] == "yes"
    assert service["RuntimeDirectoryPreserve"] == "yes"


def test_the_daemon_may_write_where_its_settings_say() -> None:
    service = Unit()["Service"]
    assert "virtrpc" in service["RuntimeDirectory"].split()
    assert service["StateDirectory"] == "virtrpc"
    assert service["ExecStart"] == f"{PROGRAM} --config /etc/virtrpc/virtrpcd.toml"
