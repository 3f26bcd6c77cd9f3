"""A scripted daemon on a Unix socket, and the command line against it or a real one."""

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import grpc.aio
import pytest
from virtrpc.cli.root import run

from tests.clients.python.scripted import ScriptedDaemon
from tests.clients.python.threads import in_thread


@dataclass(frozen=True)
class Outcome:
    """What the command line did."""

    code: int
    out: str
    err: str


Cli = Callable[..., Awaitable[Outcome]]
Run = Callable[..., subprocess.CompletedProcess[str]]


def command_line(address: str) -> Run:
    """The command line in processes of its own, against the daemon there; `given` is its input."""

    def run(*arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "virtrpc.cli", *arguments],
            env={**os.environ, "VIRTRPC_ADDRESS": address},
            input=given,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


@pytest.fixture
async def daemon(tmp_path: Path) -> AsyncIterator[ScriptedDaemon]:
    """A daemon that answers as the test says."""
    scripted = ScriptedDaemon(f"unix:{tmp_path}/d.sock")
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((scripted,))
    server.add_insecure_port(scripted.address)
    await server.start()
    yield scripted
    await server.stop(None)


@pytest.fixture
def cli(daemon: ScriptedDaemon, capsys: pytest.CaptureFixture[str]) -> Cli:
    """The command line with these arguments, in this process, its output piped."""

    async def call(*arguments: str) -> Outcome:
        code = await in_thread(run, ["--address", daemon.address, *arguments])
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return call
