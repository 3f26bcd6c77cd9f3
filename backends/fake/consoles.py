"""Consoles of the fake: a guest that echoes what is typed, and viewers' servers that echo too."""

import socket
import threading
from collections.abc import Callable
from dataclasses import replace

from virtrpc.v1 import console_pb2 as pb
from virtrpc.v1 import spec_pb2
from virtrpc.v1.console_pb2 import ConsoleType
from virtrpc.v1.instance_pb2 import Instance
from virtrpc.v1.types_pb2 import PowerState

from backends.contract import ConsolePlace, Consoles
from backends.errors import WrongStateError
from backends.fake.host import FakeHost
from backends.power_states import power_blockers

_HOST = "127.0.0.1"
_RFB_VERSION = b"RFB 003.008\n"  # RFC 6143, 7.1.1
_GREETINGS = {pb.CONSOLE_TYPE_VNC: _RFB_VERSION, pb.CONSOLE_TYPE_SPICE: b""}
_GRAPHICS = {
    pb.CONSOLE_TYPE_VNC: spec_pb2.GRAPHICS_TYPE_VNC,
    pb.CONSOLE_TYPE_SPICE: spec_pb2.GRAPHICS_TYPE_SPICE,
}
_PORTS = {
    pb.CONSOLE_TYPE_RDP: ConsolePlace(boot="", host=_HOST, port=3389),
    pb.CONSOLE_TYPE_MKS: ConsolePlace(boot="", host=_HOST, port=902, path="ticket"),
}
_READ_BYTES = 64 * 1024


class FakeConsoles(Consoles):
    """Every instance has a serial port, RDP and MKS; a screen, where its specification has one."""

    def __init__(self, host: FakeHost) -> None:
        self._host = host

    def place(self, instance_id: str, kind: "ConsoleType.ValueType") -> ConsolePlace:
        """See Consoles."""
        instance = self._with_console(instance_id, kind)
        boot = str(instance.started_at.ToNanoseconds())
        return replace(_PORTS.get(kind, ConsolePlace(boot="")), boot=boot)

    def connect(self, instance_id: str, kind: "ConsoleType.ValueType") -> socket.socket:
        """See Consoles: it sends back what it gets, VNC after its greeting."""
        self._with_console(instance_id, kind)

        def echo(line: socket.socket) -> None:
            line.sendall(_GREETINGS[kind])
            while data := line.recv(_READ_BYTES):
                line.sendall(data)

        return self._line(instance_id, echo)

    def open_serial(self, instance_id: str) -> int:
        """See Consoles: a shell that knows `echo`."""
        self._with_console(instance_id, pb.CONSOLE_TYPE_SERIAL)

        def shell(line: socket.socket) -> None:
            typed = b""
            while data := line.recv(_READ_BYTES):
                self._host.print_bytes(instance_id, data.replace(b"\r", b"\r\n"))
                *lines, typed = (typed + data).replace(b"\r", b"\n").split(b"\n")
                for command in lines:
                    said = command.removeprefix(b"echo ")
                    if said != command:
                        self._host.print_bytes(instance_id, said + b"\r\n")

        line = self._line(instance_id, shell)
        line.setblocking(False)
        return line.detach()

    def pool(self, kind: "ConsoleType.ValueType") -> pb.ConsolePool:
        """See Consoles."""
        name = ConsoleType.Name(kind).removeprefix("CONSOLE_TYPE_").lower()
        return pb.ConsolePool(address=_HOST, username=f"fake-{name}", password="fake-password")  # noqa: S106

    def _with_console(self, instance_id: str, kind: "ConsoleType.ValueType") -> Instance:
        instance = self._host.get(instance_id)
        running, paused = PowerState.POWER_STATE_RUNNING, PowerState.POWER_STATE_PAUSED
        for blocker in power_blockers(instance, running, paused):
            raise blocker
        graphics = instance.spec.machine.graphics
        if kind in _GRAPHICS and graphics != _GRAPHICS[kind]:
            raise WrongStateError("the instance has no such console", reason="NO_CONSOLE")
        return instance

    def _line(self, instance_id: str, serve: Callable[[socket.socket], None]) -> socket.socket:
        """One end of a connection whose other end is served until either hangs up."""
        ours, theirs = socket.socketpair()
        self._host.lines.add(instance_id, theirs)

        def run() -> None:
            with theirs:
                try:
                    serve(theirs)
                except OSError:  # the reader has gone, or the machine was switched off
                    return
                finally:
                    self._host.lines.discard(instance_id, theirs)

        threading.Thread(target=run, name="fake-console", daemon=True).start()
        return ours
