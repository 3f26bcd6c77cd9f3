"""The daemon of the demonstration, as a child process."""

import asyncio
import shutil
import signal
import sys

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from deploy.demo.place import ROOT, Place, free_port

_STOP_S = 30.0
_LOG_LINES = 20


class DaemonEndedError(Exception):
    """The daemon has ended by itself."""


class Daemon:
    """`virtrpcd` with its state at a place. Belongs to one event loop."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._process: asyncio.subprocess.Process | None = None
        self.addresses = place.addresses()
        self.metrics = f"127.0.0.1:{free_port()}"

    @property
    def address(self) -> str:
        """Where we reach it."""
        return self.addresses[0]

    async def start(self) -> None:
        """Starts it, and returns when instances can be served.

        Raises DaemonEndedError when it ends before.
        """
        with self._place.log.open("wb") as log:
            # A session of its own, so that Ctrl-C is ours alone.
            self._process = await asyncio.create_subprocess_exec(
                *_dying_with_us(), *self._command(), cwd=ROOT,
                stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        await self.outlived_by(self._serving())

    async def outlived_by(self, work: "asyncio.Future[None] | asyncio.Task[None]") -> None:
        """Waits for `work`; raises DaemonEndedError when the daemon ends first."""
        assert self._process is not None  # noqa: S101 - it was started
        end = asyncio.ensure_future(self._process.wait())
        done, _ = await asyncio.wait({work, end}, return_when=asyncio.FIRST_COMPLETED)
