"""Talks to the guest agent: one call at a time, bounded in time and size.

The agent is part of the guest and trusted with nothing: it may be silent, slow,
or answer nonsense. Each of these is an error of its own, told apart from a
domain that has no agent at all.

Source: QEMU's docs/interop/qemu-ga-ref; libvirt's virDomainQemuAgentCommand.
"""

import base64
import contextlib
import json
import posixpath
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
_SCRIPT_TIMEOUT_S = 30.0
_MAKE = 'umask 077; rm -f -- "$1"; : >"$1"'
# The agent itself can neither rename nor tell what is there. Links are followed, as by `cat >`.
_PUT = """\
path=$2
[ ! -L "$path" ] || path=$(readlink -f -- "$path")
[ ! -d "$path" ] || { echo "it is a directory" >&2; exit 1; }
if [ -e "$path" ]; then
    chown "$(stat -c %u:%g -- "$path")" "$1"
    chmod "$(stat -c %a -- "$path")" "$1"
fi
mv -f -- "$1" "$path"
"""
_MOST_THINGS = (1 << 32) - 1
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


AGENT_FAILURES = (AgentNotConnectedError, AgentRefusedError, AgentTimeoutError)
"""What an agent may do to a call."""


class Agent:
    """The agent of one guest."""

    def __init__(self, domains: Domains, domain: libvirt.virDomain) -> None:
        self._domains = domains
        self.domain = domain

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
            answer = libvirt_qemu.qemuAgentCommand(self.domain, request, timeout_s, 0)
        except libvirt.libvirtError as error:
            raise self._failed(command, error) from error
        if len(answer) > _MAX_ANSWER_BYTES:
            raise AgentRefusedError(f"the agent's answer to {command} is too long")
        try:
            return json.loads(answer)["return"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise AgentRefusedError(f"the agent's answer to {command} is no answer") from error

    def count(self, command: str, *, timeout_s: int = _CALL_TIMEOUT_S) -> int:
        """Calls the agent for a number of things."""
        found = self.call(command, timeout_s=timeout_s)
        if type(found) is not int or not 0 <= found <= _MOST_THINGS:
            raise AgentRefusedError(f"the agent's answer to {command} is no number")
        return found

    def is_frozen(self) -> bool:
        """Whether it has frozen the guest's filesystems."""
        return bool(self.call("guest-fsfreeze-status") == "frozen")

    def administrator(self) -> str:
        """The account that may do everything, by the guest's operating system."""
        try:
            told = self.call("guest-get-osinfo")
        except AgentRefusedError:
            told = None  # agents before 2.10 do not know
        windows = isinstance(told, dict) and told.get("id") == "mswindows"
        return "Administrator" if windows else "root"

    def write_file(self, path: str, content: bytes, work: Work) -> None:
        """Writes a file, whole or not at all: beside it first, then over it.

        It keeps its owner and mode; a new one is its owner's alone, where the agent by itself
        would let everybody write it.
        """
        beside = posixpath.join(posixpath.dirname(path), ".virtrpc-new")
        try:
            self._script(_MAKE, beside, work=work)
            self._fill(beside, content)
            self._script(_PUT, beside, path, work=work)
        except ContractError:
            with contextlib.suppress(*AGENT_FAILURES):
                self.call("guest-exec", {"path": "/bin/rm", "arg": ["-f", "--", beside]})
            raise

    def _fill(self, path: str, content: bytes) -> None:
        handle = self.call("guest-file-open", {"path": path, "mode": "w"})
        for start in range(0, len(content), _CHUNK_BYTES):
            chunk = base64.b64encode(content[start : start + _CHUNK_BYTES]).decode("ascii")
            self.call("guest-file-write", {"handle": handle, "buf-b64": chunk})
        self.call("guest-file-flush", {"handle": handle})
        self.call("guest-file-close", {"handle": handle})

    def _script(self, script: str, *arguments: str, work: Work) -> None:
        self.run(
            "/bin/sh", "-ec", script, "virtrpc", *arguments, timeout_s=_SCRIPT_TIMEOUT_S, work=work
        )

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
        return self._domains.failed(error, self.domain.UUIDString())

    def _is_connected(self) -> bool:
        """Somebody in the guest has the agent's channel open."""
        try:
            domain = Domain.from_xml(parse(self.domain.XMLDesc()))
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
