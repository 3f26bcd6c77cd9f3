"""The power command of a host that systemd runs, against a systemctl that does no harm.

It alone is on the path: there is no way to a real one.
"""

from pathlib import Path

import pytest
from virtrpc.v1 import host_pb2 as pb
from virtrpc.v1.host_pb2 import HostPowerActionRequest

from backends.errors import ContractError, HypervisorError
from backends.host_power import SYSTEMD, CommandedPower, HostPowerPolicy

ALLOWED = HostPowerPolicy(allowed=True)


class Done:
    """Work that is always ready."""

    operation_id = caller = "test"

    def __init__(self) -> None:
        self.steps: list[str] = []

    def ready(self, blockers: "list[ContractError]") -> None:
        assert not blockers

    def step(self, name: str) -> None:
        self.steps.append(name)


@pytest.fixture
def systemctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where one is that writes down what it was asked."""
    program = tmp_path / "systemctl"
    program.write_text(f"#!/bin/sh\necho \"$@\" >>'{tmp_path}/asked'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    return program


def act(action: "pb.HostPower.ValueType") -> list[str]:
    power, work = CommandedPower(ALLOWED, instances=list, own_way=SYSTEMD), Done()
    power.host_power_action(HostPowerActionRequest(action=action), work)  # type: ignore[arg-type]
    return work.steps


@pytest.mark.parametrize(
    ("action", "asked", "step"),
    [
        (pb.HOST_POWER_SHUTDOWN, "poweroff\n", "shutdown"),
        (pb.HOST_POWER_REBOOT, "reboot\n", "reboot"),
    ],
)
def test_systemctl_is_asked_by_default(
    systemctl: Path, action: "pb.HostPower.ValueType", asked: str, step: str
) -> None:
    assert act(action) == [step]
    assert (systemctl.parent / "asked").read_text() == asked


def test_host_without_systemctl_says_so(systemctl: Path) -> None:
    systemctl.unlink()
    with pytest.raises(HypervisorError) as refusal:
        act(pb.HOST_POWER_REBOOT)
    assert refusal.value.reason == "HOST_POWER_FAILED"
