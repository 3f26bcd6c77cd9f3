"""The daemon of the demonstration, as a child process."""

import asyncio
import shutil
import sys

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from deploy.demo.place import ROOT, Place, free_port

_STOP_S = 30.0
_LOG_LINES = 20


class DaemonEndedError(Exception):
    """The daemon has ended, and nobody has asked it to."""


class Daemon:
    """`virtrpcd` with its state at a place. Belongs to one event loop."""

    def __init__(self, place: Place, *, turn: int) -> None:
        """`turn`: the descriptor that keeps the place; it is kept until the daemon has ended."""
        self._place = place
        self._turn = turn
        self._process: asyncio.subprocess.Process | None = None
        self.addresses = place.addresses()
        self.metrics = f"127.0.0.1:{free_port()}"

    @property
    def address(self) -> str:
        """Where we reach it."""
        return self.addresses[0]

    async def start(self) -> None:
        """Starts it; it does not serve yet."""
        with self._place.log.open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                *_dying_with_us(),
                *self._command(),
                cwd=ROOT,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[self._turn],
                start_new_session=True,  # so that Ctrl-C is ours alone
            )

    async def serving(self) -> None:
        """Returns when it serves instances."""
        request = health_pb2.HealthCheckRequest(service="virtrpc.v1.InstanceService")
        async with grpc.aio.insecure_channel(self.address) as channel:
            watch = health_pb2_grpc.HealthStub(channel).Watch(request, wait_for_ready=True)
            async for reply in watch:
                if reply.status == health_pb2.HealthCheckResponse.SERVING:
                    return

    async def end(self) -> None:
        """Waits for its end; raises DaemonEndedError then."""
        assert self._process is not None  # noqa: S101 - start() comes first
        raise DaemonEndedError(f"virtrpcd has ended with code {await self._process.wait()}")

    async def stop(self) -> None:
        """SIGTERM, and SIGKILL where that does not help in time."""
        if self._process is None or self._process.returncode is not None:
            return
        self._process.terminate()
        try:
            async with asyncio.timeout(_STOP_S):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()

    def last_words(self) -> list[str]:
        """The end of its log."""
        return self._place.log.read_text(errors="replace").splitlines()[-_LOG_LINES:]

    def _command(self) -> list[str]:
        return [
            sys.executable,
            "-m",
            "service.main",
            f"--backend={self._place.backend}",
            f"--state-dir={self._place.state_dir}",
            f"--metrics={self.metrics}",
            *(f"--listen={address}" for address in self.addresses),
        ]


def _dying_with_us() -> list[str]:
    """A prefix (util-linux) that ends the daemon even where we are killed."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "TERM"] if setpriv else []
