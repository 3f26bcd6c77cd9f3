"""What a guest is connected to: volumes, networks and their filters.

looked at ─▶ connected, filters in force ─▶ the guest is here
                      ╰─▶ disconnected ◀── the guest is elsewhere
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from virtrpc.v1 import migration_pb2 as pb
from virtrpc.v1.firewall_pb2 import SecurityGroup
from virtrpc.v1.spec_pb2 import InstanceSpec, InterfaceSpec

from backends.errors import ContractError, InvalidArgumentError
from backends.firewall.groups import remote_groups
from backends.interfaces.host import InterfaceHost
from backends.interfaces.places import place_errors
from backends.interfaces.side import InterfaceSide
from backends.migration.volumes import ArrivingVolumes
from backends.plan.needs import interface_needs, unmet
from backends.shares import ArrivingShares


class Connections:
    """Those of instances that come to this host, or leave it."""

    def __init__(
        self,
        host: InterfaceHost,
        side: InterfaceSide,
        volumes: ArrivingVolumes,
        shares: ArrivingShares,
        *,
        initiator: str,
    ) -> None:
        """`initiator`: by which this host logs in to iSCSI targets."""
        self._host = host
        self._side = side
        self._volumes = volumes
        self._shares = shares
        self._initiator = initiator

    def source_errors(
        self, source: pb.MigrationSource, instance_id: str, *, live: bool
    ) -> Iterator[ContractError]:
        """What keeps an instance from being connected here as it is at its source."""
        with self._claimed(instance_id, source.interfaces, "source.interfaces") as errors:
            yield from errors
        yield from self._volumes.source_errors(source, instance_id, live=live)
        yield from self._shares.errors(source.shares, "source.shares")

    @contextmanager
    def claimed(
        self, data: pb.MigrationData, spec: InstanceSpec, groups: Iterable[SecurityGroup]
    ) -> Iterator[list[ContractError]]:
        """Claims what an instance is to be connected to; gives what stands in the way."""
        with self._claimed(data.instance_id, spec.interfaces, "spec.interfaces") as errors:
            yield [
                *errors,
                *_other_ports(data, spec),
                *self._side.firewall.too_many(self._unknown(groups)),
                *self._volumes.errors(data, spec),
                *self._shares.errors(data.source.shares, "data.source.shares"),
            ]

    def announce(self, data: pb.MigrationData, groups: Iterable[SecurityGroup]) -> None:
        """Writes into the data what `connect` will bring, for whoever has to take it back."""
        data.security_group_ids.extend(g.security_group_id for g in self._unknown(groups))

    def connect(
        self, data: pb.MigrationData, spec: InstanceSpec, groups: Sequence[SecurityGroup]
    ) -> None:
        """Reserves, keeps keys and puts filters in force; writes how into the data."""
        instance_id, known = data.instance_id, self._side.firewall.groups
        self._side.book.reserve(instance_id, spec.interfaces)
        self._side.firewall.take_groups(
            group
            for group in groups
            if group.security_group_id not in known
            or group.revision > known[group.security_group_id].revision
        )
        self._side.put(instance_id, spec.interfaces)
        if self._side.firewall.interfaces_of(instance_id):
            self._side.firewall.ensure(instance_id)
        del data.interfaces[:]
        data.interfaces.extend(spec.interfaces)
        data.iscsi_initiator = self._initiator
        self._volumes.connect(data, spec)

    def arrived(self, instance_id: str) -> None:
        """What was reserved the instance has now."""
        self._side.book.give_up(instance_id)

    def disconnect(self, instance_id: str) -> None:
        """Takes all of it away. Idempotent."""
        self._side.give_up(instance_id)
        self._volumes.disconnect(instance_id)

    def take_back(self, data: pb.MigrationData) -> None:
        """As `disconnect`, and forgets the groups that came with an instance. Idempotent."""
        self.disconnect(data.instance_id)
        self._side.firewall.forget_unused(data.security_group_ids)

    def groups_of(self, interfaces: Iterable[InterfaceSpec]) -> list[SecurityGroup]:
        """The groups of interfaces, and those that their rules name, as far as they are known."""
        known = self._side.firewall.groups
        own = {group_id for interface in interfaces for group_id in interface.security_group_ids}
        named = [remote_groups(known[group_id]) for group_id in own if group_id in known]
        return [known[group_id] for group_id in sorted(own.union(*named)) if group_id in known]

    def _unknown(self, groups: Iterable[SecurityGroup]) -> list[SecurityGroup]:
        known = self._side.firewall.groups
        return [group for group in groups if group.security_group_id not in known]

    @contextmanager
    def _claimed(
        self, instance_id: str, interfaces: Sequence[InterfaceSpec], field: str
    ) -> Iterator[list[ContractError]]:
        wanted = [(f"{field}[{index}]", spec) for index, spec in enumerate(interfaces)]
        with self._side.book.claimed(instance_id, wanted) as taken:
            yield [*taken, *(error for at, spec in wanted for error in self._errors(spec, at))]

    def _errors(self, interface: InterfaceSpec, field: str) -> list[ContractError]:
        """That the host can carry such an interface, and has what it is connected to."""
        missing = unmet([*interface_needs(interface, field)], self._host.features)
        return missing or [
            *place_errors(interface, field, self._side.devices),
            *self._host.network_errors(interface, field),
        ]


def _other_ports(data: pb.MigrationData, spec: InstanceSpec) -> Iterator[ContractError]:
    """That a specification has not the interfaces that the guest has."""
    ports = {interface.port_id for interface in data.interfaces}
    if ports and ports != {interface.port_id for interface in spec.interfaces}:
        why = "the guest has other ports than these"
        yield InvalidArgumentError(why, field="spec.interfaces")
