"""Consoles of libvirt's machines: the pty of the serial port, the Unix sockets of the screens."""

import os
import socket
from dataclasses import dataclass

from virtrpc.v1 import console_pb2 as pb
from virtrpc.v1.console_pb2 import ConsoleType
from virtrpc.v1.types_pb2 import PowerState

from backends.contract import ConsolePlace, Consoles
from backends.errors import (
    InstanceNotFoundError,
    UnreachableError,
    UnsupportedError,
    WrongStateError,
)
from backends.libvirt.domains import Domains
from backends.libvirt.errors import translating
from backends.libvirt.probe import Probed
from backends.libvirt.xml.domain import Domain
from backends.libvirt.xml.element import parse
from backends.power_states import power_blockers
from backends.specification import require_managed

_SCREENS = {pb.CONSOLE_TYPE_VNC: "vnc", pb.CONSOLE_TYPE_SPICE: "spice"}
_SERIAL = (pb.CONSOLE_TYPE_SERIAL, pb.CONSOLE_TYPE_WEB)
_CONNECT_S = 5.0


@dataclass(frozen=True)
class _Machine:
    """A running machine: which start of it, and its devices."""

    boot: str
    devices: Domain


class LibvirtConsoles(Consoles):
    """What the XML of running domains tells of their consoles."""

    def __init__(self, domains: Domains, probed: Probed) -> None:
        self._domains = domains
        self._probed = probed

    def place(self, instance_id: str, kind: "ConsoleType.ValueType") -> ConsolePlace:
        """See Consoles."""
        self._require_known(kind)
        machine = self._running(instance_id)
        _path(machine.devices, kind)
        return ConsolePlace(boot=machine.boot)

    def connect(self, instance_id: str, kind: "ConsoleType.ValueType") -> socket.socket:
        """See Consoles."""
        self._require_known(kind)
        path = _path(self._running(instance_id).devices, kind)
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(_CONNECT_S)
        try:
            connection.connect(path)
        except OSError as error:
            connection.close()
            raise UnreachableError(f"the console does not answer: {error.strerror}") from error
        return connection

    def open_serial(self, instance_id: str) -> int:
        """See Consoles."""
        machine = self._running(instance_id)
        path = _path(machine.devices, pb.CONSOLE_TYPE_SERIAL)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise UnreachableError(f"the serial port does not open: {error.strerror}") from error
        try:
            # The name of a pty is given again: it was the machine's if that still runs.
            if self._running(instance_id).boot != machine.boot:
                raise WrongStateError("the instance was restarted meanwhile")
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def pool(self, kind: "ConsoleType.ValueType") -> pb.ConsolePool:
        """See Consoles: there is nothing to log in to, tokens are enough."""
        self._require_known(kind)
        return pb.ConsolePool(address=socket.gethostname())

    def _require_known(self, kind: "ConsoleType.ValueType") -> None:
        name = ConsoleType.Name(kind).removeprefix("CONSOLE_TYPE_").lower()
        if kind in _SCREENS:
            why = self._probed.features.get(name, "")
        else:
            why = "" if kind in _SERIAL else "QEMU has no such consoles"
        if why:
            raise UnsupportedError(f"get_console.{name}", why=why, field="type")

    def _running(self, instance_id: str) -> _Machine:
        domain = self._domains.find(instance_id)
        if domain is None:
            raise InstanceNotFoundError(instance_id)
        instance = require_managed(self._domains.read(domain), instance_id)
        running, paused = PowerState.POWER_STATE_RUNNING, PowerState.POWER_STATE_PAUSED
        for blocker in power_blockers(instance, running, paused):
            raise blocker
        started_ns = instance.started_at.ToNanoseconds()
        with translating(instance_id):
            boot = str(started_ns) if started_ns else f"domain-{domain.ID()}"
            return _Machine(boot, Domain.from_xml(parse(domain.XMLDesc(0))))


def _path(devices: Domain, kind: "ConsoleType.ValueType") -> str:
    """Address of a console on this host; raises WrongStateError where there is none."""
    if kind in _SERIAL:
        paths = [port.source_path for port in devices.serials if port.type == "pty"]
    else:
        screens = [screen for screen in devices.graphics if screen.type == _SCREENS.get(kind)]
        paths = [screen.socket for screen in screens]
    for path in paths:
        if path:
            return path
    raise WrongStateError("the instance has no such console", reason="NO_CONSOLE")
