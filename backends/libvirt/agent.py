"""Talks to the guest agent: one call at a time, bounded in time and size.

The agent is part of the guest and trusted with nothing: it may be silent, slow,
or answer nonsense. Each of these is an error of its own, told apart from a
domain that has no agent at all.

Source: QEMU's docs/interop/qemu-ga-ref; libvirt's virDomainQemuAgentCommand.
"""

import base64
import json
import time
from collections.abc import Mapping
from typing import Any

import libvirt
import libvirt_qemu

from backends.errors import ContractError, TimedOutError, WrongStateError
from backends.libvirt.blueprint import AGENT_CHANNEL
from backends.libvirt.domains import Domains
from backends.libvirt.xml.domain import Domain
from backends.libvirt.xml.element import parse
from backends.work import Work

_CALL_TIMEOUT_S = 10
_MAX_ANSWER_BYTES = 1 << 20
_CHUNK_BYTES = 48 * 1024
_LOOK_S = 0.1
_NOT_THERE = frozenset(
    {
        libvirt.VIR_ERR_AGENT_UNRESPONSIVE,
        libvirt.VIR_ERR_ARGUMENT_UNSUPPORTED,
        libvirt.VIR_ERR_OPERATION_UNSUPPORTED,
    }
)


class AgentNotConnectedError(WrongStateError):
    """No agent answers in the guest."""

    reason = "AGENT_NOT_CONNECTED"


class AgentRefusedError(WrongStateError):
    """The agent cannot or will not."""

    reason = "AGENT_REFUSED"


class AgentTimeoutError(TimedOutError):
    """The agent was asked and did not answer in time."""

    reason = "AGENT_TIMEOUT"


class Agent:
    """The agent of one guest."""

    def __init__(self, domains: Domains, domain: libvirt.virDomain) -> None:
        self._domains = domains
        self._domain = domain

    def blockers(self) -> list[ContractError]:
        """That an agent answers."""
        try:
            self.call("guest-ping")
        except (WrongStateError, TimedOutError) as error:
            return [error]
        return []

    def call(
        self,
        command: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        timeout_s: int = _CALL_TIMEOUT_S,
    ) -> Any:
        """Calls the agent; gives what it returned."""
        request = json.dumps({"execute": command, "arguments": dict(arguments or {})})
        try:
            answer = libvirt_qemu.qemuAgentCommand(self._domain, request, timeout_s, 0)
        except libvirt.libvirtError as error:
            raise self._failed(command, error) from error
        if len(answer) > _MAX_ANSWER_BYTES:
            raise AgentRefusedError(f"the agent's answer to {command} is too long")
        try:
            return json.loads(answer)["return"]
        except (ValueError, KeyError, TypeError) as error:
            raise AgentRefusedError(f"the agent's answer to {command} is no answer") from error

    def write_file(self, path: str, content: bytes) -> None:
        """Writes a file, whole or not at all: beside it first, then over it."""
        beside = f"{path}.virtrpc-new"
        handle = self.call("guest-file-open", {"path": beside, "mode": "w"})
        try:
            for start in range(0, len(content), _CHUNK_BYTES):
                chunk = base64.b64encode(content[start : start + _CHUNK_BYTES]).decode("ascii")
                self.call("guest-file-write", {"handle": handle, "buf-b64": chunk})
            self.call("guest-file-flush", {"handle": handle})
        finally:
            self.call("guest-file-close", {"handle": handle})

    def run(
        self, program: str, *arguments: str, stdin: bytes = b"", timeout_s: float, work: Work
    ) -> None:
        """Runs a program in the guest; raises AgentRefusedError where it fails."""
        started = self.call(
            "guest-exec",
            {
                "path": program,
                "arg": list(arguments),
                "input-data": base64.b64encode(stdin).decode("ascii"),
                "capture-output": True,
            },
        )
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            status = self.call("guest-exec-status", {"pid": _number(started, "pid")})
            if isinstance(status, dict) and status.get("exited"):
                return _check_exit(program, status)
            work.wait(_LOOK_S)
        raise AgentTimeoutError(f"{program} did not end in {timeout_s:.0f} s in the guest")

    def _failed(self, command: str, error: libvirt.libvirtError) -> ContractError:
        code, text = error.get_error_code(), error.get_error_message()
        if code == libvirt.VIR_ERR_AGENT_UNRESPONSIVE and self._is_connected():
            # libvirt says a timeout in no other way.
            return AgentTimeoutError(f"the agent did not answer {command} in time")
        if code in _NOT_THERE:
            return AgentNotConnectedError(f"no guest agent answers: {text}")
        if code in (libvirt.VIR_ERR_INTERNAL_ERROR, libvirt.VIR_ERR_AGENT_UNSYNCED):
            return AgentRefusedError(f"the agent refused {command}: {text}")
        return self._domains.failed(error, self._domain.UUIDString())

    def _is_connected(self) -> bool:
        """Somebody in the guest has the agent's channel open."""
        try:
            domain = Domain.from_xml(parse(self._domain.XMLDesc()))
        except libvirt.libvirtError:
            return False
        return any(
            channel.target_name == AGENT_CHANNEL and channel.target_state == "connected"
            for channel in domain.channels
        )


def _number(answer: Any, key: str) -> int:
    value = answer.get(key) if isinstance(answer, dict) else None
    if not isinstance(value, int):
        raise AgentRefusedError(f"the agent's answer has no {key}")
    return value


def _check_exit(program: str, status: Mapping[str, Any]) -> None:
    if status.get("exitcode") == 0:
        return
    try:
        shown = base64.b64decode(str(status.get("err-data", "")))[-200:].decode("utf-8", "replace")
    except ValueError:
        shown = ""
    raise AgentRefusedError(f"{program} failed in the guest: {shown.strip() or 'no message'}")
