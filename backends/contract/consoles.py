"""Ways to an instance's consoles, beside the log of its serial port."""

import socket
from abc import ABC, abstractmethod
from dataclasses import dataclass

from virtrpc.v1.console_pb2 import ConsolePool, ConsoleType


@dataclass(frozen=True, kw_only=True)
class ConsolePlace:
    """A console of a running machine."""

    boot: str
    """Which start of the machine it belongs to; another start has another text."""
    host: str = ""
    port: int = 0
    tls_port: int = 0
    path: str = ""
    """Where it can be reached without the daemon; empty and 0: nowhere."""


class Consoles(ABC):
    """The consoles of running machines. All methods block and may be called from any thread.

    They raise InstanceNotFoundError; UnsupportedError where this backend has no
    consoles of a kind; WrongStateError where the machine is off, or has no such
    device (NO_CONSOLE).
    """

    @abstractmethod
    def place(self, instance_id: str, kind: "ConsoleType.ValueType") -> ConsolePlace:
        """Where a console is, now."""

    @abstractmethod
    def connect(self, instance_id: str, kind: "ConsoleType.ValueType") -> socket.socket:
        """A new connection to a VNC or SPICE console; ends when the machine does."""

    @abstractmethod
    def open_serial(self, instance_id: str) -> int:
        """A non-blocking descriptor of the serial port, the caller's to close.

        What is written is input for the guest. What the guest says must be read off
        it, or the guest waits; the log has the same. At its end the machine is off.
        """

    @abstractmethod
    def pool(self, kind: "ConsoleType.ValueType") -> ConsolePool:
        """Where a console proxy logs in to this host's consoles of a kind."""
