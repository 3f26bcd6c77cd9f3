"""The host's own power, by commands of its configuration; alike for every backend."""

import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import structlog
from virtrpc.v1 import host_pb2 as pb
from virtrpc.v1.instance_pb2 import Instance
from virtrpc.v1.types_pb2 import PowerState

from backends.contract import HostPower
from backends.errors import ContractError, HypervisorError, WrongStateError
from backends.work import Work

_TIMEOUT_S = 60.0
_ON = (PowerState.POWER_STATE_RUNNING, PowerState.POWER_STATE_PAUSED)
_STEPS = {pb.HOST_POWER_SHUTDOWN: "shutdown", pb.HOST_POWER_REBOOT: "reboot"}
Command = Sequence[str]
log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True)
class HostPowerPolicy:
    """Whether the host may be switched off by its own service, and how."""

    allowed: bool = False
    shutdown_command: tuple[str, ...] = ()
    """Program and arguments; empty: the backend's own way."""
    reboot_command: tuple[str, ...] = ()


SYSTEMD: Mapping[int, Command] = {
    pb.HOST_POWER_SHUTDOWN: ("systemctl", "poweroff"),
    pb.HOST_POWER_REBOOT: ("systemctl", "reboot"),
}
"""The way of a host that systemd runs."""


def _unobserved(work: Work, _verb: str) -> Work:
    return work


class CommandedPower(HostPower):
    """Runs a command, never a shell: it has succeeded when the verb returns."""

    def __init__(
        self,
        policy: HostPowerPolicy,
        *,
        instances: Callable[[], Iterable[Instance]],
        own_way: Mapping[int, Command],
        observed: Callable[[Work, str], Work] = _unobserved,
    ) -> None:
        """`own_way` are commands by action where none is configured; empty ones do nothing."""
        configured = {
            pb.HOST_POWER_SHUTDOWN: policy.shutdown_command,
            pb.HOST_POWER_REBOOT: policy.reboot_command,
        }
        self._allowed = policy.allowed
        self._commands = {
            action: command or own_way.get(action, ()) for action, command in configured.items()
        }
        self._instances = instances
        self._observed = observed

    def host_power_action(
        self, request: pb.HostPowerActionRequest, work: Work
    ) -> pb.HostPowerActionResponse:
        """See HostPower."""
        work = self._observed(work, "host_power_action")
        work.ready(self._blockers(request))
        if request.action == pb.HOST_POWER_STARTUP:
            return pb.HostPowerActionResponse(already_done=True)
        step = _STEPS[request.action]
        work.step(step)  # nothing undoes it, and nobody does it again
        log.warning("the host's power is changed", action=step, caller=work.caller)
        _run(self._commands[request.action])
        return pb.HostPowerActionResponse()

    def _blockers(self, request: pb.HostPowerActionRequest) -> list[ContractError]:
        blockers: list[ContractError] = []
        if not self._allowed:
            why = "the daemon was started without --allow-host-power"
            blockers.append(WrongStateError(why, reason="HOST_POWER_NOT_ALLOWED"))
        if request.action != pb.HOST_POWER_STARTUP and not request.force:
            on = sum(instance.power_state in _ON for instance in self._instances())
            blockers += [_instances_running(on)] if on else []
        return blockers


def _instances_running(count: int) -> WrongStateError:
    return WrongStateError(
        f"{count} instances are running or paused: evacuate them, or set force",
        reason="INSTANCES_RUNNING",
        metadata={"instances": str(count)},
    )


def _run(command: Command) -> None:
    if not command:
        return
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _failed(str(error), {}) from error
    if done.returncode:
        log.error("the command failed", said=done.stdout[-1000:].decode(errors="replace"))
        raise _failed(f"it ended with {done.returncode}", {"exit_code": str(done.returncode)})


def _failed(why: str, metadata: Mapping[str, str]) -> HypervisorError:
    return HypervisorError(
        f"the host's power command failed: {why}", reason="HOST_POWER_FAILED", metadata=metadata
    )
