"""The host's side of interfaces: reserved, filtered, and taken away again.

Spawn, destroy and the verbs of interfaces share it, and both backends do.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager

from virtrpc.v1.spec_pb2 import InterfaceSpec

from backends.errors import AlreadyExistsError, ContractError
from backends.firewall.firewall import HostFirewall
from backends.interfaces.book import InterfaceBook
from backends.interfaces.places import Devices, place_errors
from backends.plan.interfaces import host_device

_MADE_BY_US = ("bridge", "libvirt_network", "open_vswitch", "macvtap", "tap")


class InterfaceSide:
    """Callable from any thread."""

    def __init__(self, book: InterfaceBook, firewall: HostFirewall, devices: Devices) -> None:
        self.book = book
        self.firewall = firewall
        self.devices = devices

    @contextmanager
    def claimed(
        self, instance_id: str, interfaces: Sequence[InterfaceSpec]
    ) -> Iterator[list[ContractError]]:
        """Claims the interfaces of an instance to come; gives what stands in the way."""
        wanted = [(f"spec.interfaces[{n}]", spec) for n, spec in enumerate(interfaces)]
        with self.book.claimed(instance_id, wanted) as taken:
            yield [
                *taken,
                *(error for at, spec in wanted for error in place_errors(spec, at, self.devices)),
                *self._prepared_otherwise(instance_id, interfaces),
            ]

    def put(self, instance_id: str, interfaces: Iterable[InterfaceSpec]) -> None:
        """Puts filters in force, before the first packet."""
        self.firewall.put(instance_id, interfaces)

    def take_away(
        self,
        instance_id: str,
        interfaces: Iterable[InterfaceSpec] = (),
        port_ids: Collection[str] | None = None,
    ) -> list[str]:
        """Removes what the host has of interfaces, all of an instance or some ports.

        `interfaces` are those that may have left a device. Gives the ports of which
        something was there.
        """
        known = [*interfaces, *self.firewall.interfaces_of(instance_id)]
        gone = set(self.firewall.drop(instance_id, port_ids))
        for interface in known:
            chosen = port_ids is None or interface.port_id in port_ids
            if chosen and self._remove_device(interface):
                gone.add(interface.port_id)
        return sorted(gone)

    def give_up(self, instance_id: str) -> list[str]:
        """Removes all that the host has of an instance, what is reserved too."""
        gone = self.take_away(instance_id, self.book.prepared(instance_id) or ())
        self.book.give_up(instance_id)
        return gone

    def _remove_device(self, interface: InterfaceSpec) -> bool:
        mine = interface.WhichOneof("network") in _MADE_BY_US
        if not mine or interface.tap.managed_by_caller:
            return False
        return self.devices.remove(host_device(interface))

    def _prepared_otherwise(
        self, instance_id: str, interfaces: Sequence[InterfaceSpec]
    ) -> list[ContractError]:
        prepared = self.book.prepared(instance_id)
        if prepared is None or prepared == list(interfaces):
            return []
        return [prepared_otherwise("spec.interfaces")]


def prepared_otherwise(field: str) -> AlreadyExistsError:
    """PrepareNetworks was given other interfaces."""
    return AlreadyExistsError(
        "the networks of this instance are prepared in another way: CleanNetworksPreparation",
        reason="INTERFACE_DIFFERS",
        field=field,
    )
