"""Whether what an interface is to be connected to is there, and ready."""

from collections.abc import Iterator
from typing import Protocol

from virtrpc.v1.spec_pb2 import InterfaceSpec

from backends.errors import ContractError, InvalidArgumentError, NotFoundError, WrongStateError


class Devices(Protocol):
    """Network devices of a host; see backends.interfaces.devices."""

    def exists(self, name: str) -> bool:
        """There is such a device."""

    def is_up(self, name: str) -> bool:
        """It was set up."""

    def is_bridge(self, name: str) -> bool:
        """It is a bridge of the kernel."""

    def is_tap(self, name: str) -> bool:
        """It is a tap device."""

    def is_virtual_function(self, pci_address: str) -> bool:
        """It is a virtual function of an SR-IOV device."""

    def remove(self, name: str) -> bool:
        """Removes a device; False where there was none."""


def place_errors(interface: InterfaceSpec, field: str, devices: Devices) -> Iterator[ContractError]:
    """What keeps an interface from its place; `field` is the interface's path.

    Networks that a hypervisor keeps, and switches of others, it asks for itself.
    """
    match interface.WhichOneof("network"):
        case "bridge":
            yield from _bridge_errors(interface.bridge.bridge, f"{field}.bridge.bridge", devices)
        case "macvtap":
            yield from _up(interface.macvtap.device, f"{field}.macvtap.device", devices)
        case "tap":
            yield from _tap_errors(interface, f"{field}.tap.device", devices)
        case "host_device":
            address, at = interface.host_device.pci_address, f"{field}.host_device.pci_address"
            if not devices.is_virtual_function(address):
                yield network_missing(f"virtual function {address}", at)


def _bridge_errors(name: str, field: str, devices: Devices) -> Iterator[ContractError]:
    if not devices.is_bridge(name):
        yield network_missing(f"bridge {name}", field)
    else:
        yield from _up(name, field, devices)


def _up(name: str, field: str, devices: Devices) -> Iterator[ContractError]:
    if not devices.exists(name):
        yield network_missing(f"device {name}", field)
    elif not devices.is_up(name):
        yield network_down(name, field)


def _tap_errors(interface: InterfaceSpec, field: str, devices: Devices) -> Iterator[ContractError]:
    name = interface.tap.device
    if not interface.tap.managed_by_caller:
        return
    if not devices.exists(name):
        yield network_missing(f"tap device {name}", field)
    elif not devices.is_tap(name):
        yield InvalidArgumentError(f"{name} is no tap device", field=field)


def network_missing(what: str, field: str) -> NotFoundError:
    """The host has no such thing."""
    return NotFoundError(f"the host has no {what}", reason="NETWORK_NOT_FOUND", field=field)


def network_down(name: str, field: str) -> WrongStateError:
    """It is there, but not active."""
    return WrongStateError(f"{name} is not active", reason="NETWORK_DOWN", field=field)
