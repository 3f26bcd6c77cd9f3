"""A real daemon in a process of its own, as tests start, kill and restart it."""

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from virtrpc.v1 import (
    console_pb2_grpc,
    event_pb2_grpc,
    firewall_pb2_grpc,
    host_pb2_grpc,
    instance_pb2_grpc,
    interface_pb2_grpc,
    migration_pb2_grpc,
    operation_pb2_grpc,
    volume_pb2_grpc,
)

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 30.0


class DaemonDiedError(Exception):
    """The daemon ended while it was expected to serve; the message has its log."""


class DaemonProcess:
    """`virtrpcd` on a Unix socket below `folder`, with its state there too.

    `program` replaces the daemon's command by another one that takes its flags, as a
    wrapper that dies at a chosen step.
    """

    def __init__(
        self,
        folder: Path,
        *,
        backend: str,
        arguments: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        program: Sequence[str] = (sys.executable, "-m", "service.main"),
    ) -> None:
        self.folder = folder
        self.backend = backend
        self.address = f"unix:{folder}/virtrpc.sock"
        self.log_path = folder / "daemon.log"
        self.process: subprocess.Popen[bytes] | None = None
        self._arguments = tuple(arguments)
        self._environment = dict(environment or {})
        self._program = tuple(program)

    @property
    def state_dir(self) -> Path:
        """The daemon's state directory."""
        return self.folder / "state"

    @property
    def image_dir(self) -> Path:
        """The daemon's image store."""
        return self.state_dir / "images"

    @property
    def volume_dir(self) -> Path:
        """A directory for volumes; whoever uses it says so to the daemon, and makes it."""
        return self.folder / "volumes"

    @property
    def sources(self) -> Path:
        """A folder that a test may let it read images from, and share."""
        return self.folder / "sources"

    def start(self, *more: str, wait: bool = True) -> Self:
        """Starts it, and waits until it reaches its hypervisor; `more`: flags of this run."""
        command = [
            *self._program,
            f"--backend={self.backend}",
            f"--state-dir={self.state_dir}",
            f"--listen={self.address}",
            "--metrics=",
            *self._arguments,
            *more,
        ]
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, env={**os.environ, **self._environment}
            )
        if wait:
            self.wait_ready()
        return self

    def wait_ready(self) -> None:
        """Returns when instances are SERVING; raises DaemonDiedError."""
        deadline = time.monotonic() + START_TIMEOUT_S
        request = health_pb2.HealthCheckRequest(service="virtrpc.v1.InstanceService")
        while time.monotonic() < deadline:
            if self.process is None or self.process.poll() is not None:
                raise DaemonDiedError(self.log())
            with grpc.insecure_channel(self.address) as channel:
                stub = health_pb2_grpc.HealthStub(channel)
                try:
                    for reply in stub.Watch(request, timeout=5, wait_for_ready=True):
                        if reply.status == health_pb2.HealthCheckResponse.SERVING:
                            return
                except grpc.RpcError:
                    continue
        raise DaemonDiedError(f"not ready in {START_TIMEOUT_S} s:\n{self.log()}")

    def stop(self) -> int:
        """SIGTERM, and its exit code."""
        return self._end(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        self._end(signal.SIGKILL)

    def wait(self, timeout_s: float = STOP_TIMEOUT_S) -> int:
        """Waits for its own end; gives the exit code."""
        assert self.process is not None
        descriptor = os.pidfd_open(self.process.pid) if self.process.poll() is None else None
        if descriptor is not None:
            select.select([descriptor], [], [], timeout_s)
            os.close(descriptor)
        return self.process.wait(timeout=0.1)

    def log(self) -> str:
        """What it has logged."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def connect(self) -> "Connection":
        """A new connection with a stub for each service; close it after use."""
        return Connection(self.address)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        if self.process is not None and self.process.poll() is None:
            self.stop()

    def _end(self, number: int) -> int:
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(timeout=STOP_TIMEOUT_S)


class Connection:
    """Stubs over one channel."""

    def __init__(self, address: str, credentials: grpc.ChannelCredentials | None = None) -> None:
        self.channel = (
            grpc.insecure_channel(address)
            if credentials is None
            else grpc.secure_channel(address, credentials)
        )
        self.instances = instance_pb2_grpc.InstanceServiceStub(self.channel)
        self.interfaces = interface_pb2_grpc.InterfaceServiceStub(self.channel)
        self.firewall = firewall_pb2_grpc.FirewallServiceStub(self.channel)
        self.operations = operation_pb2_grpc.OperationServiceStub(self.channel)
        self.events = event_pb2_grpc.EventServiceStub(self.channel)
        self.consoles = console_pb2_grpc.ConsoleServiceStub(self.channel)
        self.migrations = migration_pb2_grpc.MigrationServiceStub(self.channel)
        self.hosts = host_pb2_grpc.HostServiceStub(self.channel)
        self.volumes = volume_pb2_grpc.VolumeServiceStub(self.channel)

    def close(self) -> None:
        """Closes the channel."""
        self.channel.close()

    def __enter__(self) -> "Connection":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
