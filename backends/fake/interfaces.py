"""Interfaces and filtering on the fake: a host that has every network, and a guest that obeys.

What begins with "missing" the host has not, what begins with "down" is not active.
"""

from collections.abc import Callable, Collection, Iterable, Mapping

from virtrpc.v1.event_pb2 import EventType
from virtrpc.v1.instance_pb2 import AttachedInterface, Instance
from virtrpc.v1.spec_pb2 import InstanceSpec, InterfaceSpec

from backends.errors import ContractError
from backends.fake.features import FEATURES
from backends.fake.host import FakeHost
from backends.fake.machines import attached_interface, machines
from backends.firewall.nft import DEFAULT_TIMEOUT_S
from backends.firewall.ruleset import Ruleset
from backends.interfaces.places import network_down, network_missing
from backends.work import Work

_MISSING, _DOWN = "missing", "down"


class FakeDevices:
    """Every device there may be."""

    def exists(self, name: str) -> bool:
        """See places.Devices."""
        return not name.startswith(_MISSING)

    def is_up(self, name: str) -> bool:
        """See places.Devices."""
        return self.exists(name) and not name.startswith(_DOWN)

    is_bridge = is_tap = exists

    def is_virtual_function(self, pci_address: str) -> bool:
        """See places.Devices; the first bus of a host has none."""
        return not pci_address.startswith("0000:00:")

    def remove(self, name: str) -> bool:  # noqa: ARG002 - see places.Devices
        """See places.Devices; its devices are gone with their machines."""
        return False


class MemoryFilter:
    """A kernel that takes all rules."""

    def __init__(self) -> None:
        self.rules = Ruleset()

    def put(self, rules: Ruleset, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:  # noqa: ARG002
        """See filters.Filter."""
        self.rules = rules

    def missing(
        self,
        rules: Ruleset,
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,  # noqa: ARG002
    ) -> Collection[str]:
        """See filters.Filter."""
        return rules.chains.keys() - self.rules.chains.keys()


class FakeInterfaceHost:
    """See backends.interfaces.host.InterfaceHost."""

    features: Mapping[str, str] = FEATURES

    def __init__(self, host: FakeHost) -> None:
        self._host = host

    def find(self, instance_id: str) -> Instance | None:
        """See InterfaceHost."""
        return self._host.find(instance_id)

    def managed(self, instance_id: str) -> Instance:
        """See InterfaceHost."""
        return self._host.get(instance_id)

    tell = managed

    def observed(self, work: Work, verb: str, instance: Instance | None) -> Work:
        """See InterfaceHost."""
        return self._host.faulty(work, verb, instance)

    def network_errors(self, interface: InterfaceSpec, field: str) -> Iterable[ContractError]:
        """See InterfaceHost."""
        at = f"{field}.{interface.WhichOneof('network')}"
        for name in (interface.libvirt_network.network, interface.open_vswitch.bridge):
            if name.startswith(_MISSING):
                yield network_missing(f"network {name}", at)
            elif name.startswith(_DOWN):
                yield network_down(name, at)

    def hot_plug_errors(
        self,
        instance: Instance,  # noqa: ARG002 - see InterfaceHost
        interface: InterfaceSpec,  # noqa: ARG002
    ) -> list[ContractError]:
        """See InterfaceHost; its machines have slots without end."""
        return []

    def plug_in(self, instance_id: str, interface: InterfaceSpec) -> None:
        """See InterfaceHost."""
        attached = attached_interface(instance_id, interface)
        with self._host.edit(instance_id) as instance:
            for machine in machines(instance):
                if all(other.port_id != interface.port_id for other in machine.interfaces):
                    machine.interfaces.append(attached)
        self._host.device_changed(instance_id, EventType.EVENT_TYPE_DEVICE_ADDED, interface.port_id)

    def release(
        self,
        instance_id: str,
        attached: AttachedInterface,
        work: Work | None,  # noqa: ARG002 - see InterfaceHost
        *,
        timeout_s: float,  # noqa: ARG002
        retry_s: float,  # noqa: ARG002
    ) -> bool:
        """See InterfaceHost; its guests let go at once."""
        if _remove(self._host, instance_id, attached, running=True):
            kind = EventType.EVENT_TYPE_DEVICE_REMOVED
            self._host.device_changed(instance_id, kind, attached.port_id)
        return True

    def forget(self, instance_id: str, attached: AttachedInterface) -> None:
        """See InterfaceHost."""
        _remove(self._host, instance_id, attached, running=False)

    def change_spec(self, instance_id: str, change: Callable[[InstanceSpec], None]) -> None:
        """See InterfaceHost."""
        with self._host.edit(instance_id) as instance:
            change(instance.spec)


def _remove(
    host: FakeHost, instance_id: str, attached: AttachedInterface, *, running: bool
) -> bool:
    instance = host.find(instance_id)
    if instance is None or (running and not instance.HasField("effective")):
        return False
    with host.edit(instance_id) as edited:
        machine = edited.effective if running else edited.persistent
        left = [i for i in machine.interfaces if i.port_id != attached.port_id]
        gone = len(left) < len(machine.interfaces)
        del machine.interfaces[:]
        machine.interfaces.extend(left)
    return gone
