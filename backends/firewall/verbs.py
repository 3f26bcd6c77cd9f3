"""The verbs of filtering: the same for every backend, on what it knows of its instances."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from virtrpc.v1 import firewall_pb2 as pb
from virtrpc.v1.instance_pb2 import Instance
from virtrpc.v1.spec_pb2 import InstanceSpec, InterfaceSpec
from virtrpc.v1.types_pb2 import PowerState

from backends.contract import Firewall
from backends.durations import seconds
from backends.errors import (
    ContractError,
    InstanceNotFoundError,
    InvalidArgumentError,
    UnsupportedError,
    WrongStateError,
)
from backends.firewall.firewall import HostFirewall
from backends.firewall.groups import remote_groups
from backends.firewall.nft import DEFAULT_TIMEOUT_S
from backends.interfaces.host import InterfaceHost
from backends.interfaces.verbs import port_not_found, spec_of
from backends.plan.interfaces import host_device, kind_of, list_errors
from backends.work import Work

_DEFER_S = 60.0
_OFF = (PowerState.POWER_STATE_SHUTDOWN, PowerState.POWER_STATE_CRASHED)
# A group that nobody can give rules: an interface that has it and no other lets nothing through.
NOBODY = "00000000-0000-0000-0000-000000000000"


class DeviceNames(Protocol):
    """Which network devices there are."""

    def exists(self, name: str) -> bool:
        """There is such a device."""


class HostFiltering(Firewall):
    """Filtering of the instances of one host."""

    def __init__(self, host: InterfaceHost, firewall: HostFirewall, devices: DeviceNames) -> None:
        self._host = host
        self._firewall = firewall
        self._devices = devices

    def refresh_security_group(
        self, request: pb.RefreshSecurityGroupRequest, work: Work
    ) -> pb.RefreshSecurityGroupResponse:
        """See Firewall."""
        work = self._host.observed(work, "refresh_security_group", None)
        group = request.security_group
        work.ready(self._group_errors([group], "security_group"))
        if self._firewall.is_superseded(group):
            return pb.RefreshSecurityGroupResponse(superseded=True)
        work.step("rules")
        concerned = self._firewall.take_groups([group])
        return pb.RefreshSecurityGroupResponse(
            instance_ids=sorted(concerned), deferred=self._firewall.deferring
        )

    def refresh_instance_security_rules(
        self, request: pb.RefreshInstanceSecurityRulesRequest, work: Work
    ) -> pb.RefreshInstanceSecurityRulesResponse:
        """See Firewall."""
        instance = self._host.managed(request.instance_id)
        work = self._host.observed(work, "refresh_instance_security_rules", instance)
        groups = {change.port_id: _groups_of(change) for change in request.interfaces}
        work.ready(
            [
                *_change_errors(instance, request.interfaces),
                *self._group_errors(request.security_groups, "security_groups[{}]"),
            ]
        )
        work.step("rules")
        self._firewall.take_groups(request.security_groups)
        changed = [_with_groups(i, groups) for i in instance.spec.interfaces]
        self._firewall.put(request.instance_id, changed, at_once=False)
        if groups:
            work.commit()  # the kernel has them already
            work.step("specification")
            self._host.change_spec(request.instance_id, lambda spec: _set_groups(spec, groups))
            self._host.tell(request.instance_id)
        return pb.RefreshInstanceSecurityRulesResponse(deferred=self._firewall.deferring)

    def ensure_filtering_rules(
        self, request: pb.EnsureFilteringRulesRequest, work: Work
    ) -> pb.EnsureFilteringRulesResponse:
        """See Firewall."""
        instance = self._host.find(request.instance_id)
        work = self._host.observed(work, "ensure_filtering_rules", instance)
        if instance is None and not request.interfaces:
            raise InstanceNotFoundError(request.instance_id)
        interfaces = request.interfaces if instance is None else instance.spec.interfaces
        work.ready(
            [
                *_ports_errors(instance, request.interfaces),
                *self._group_errors(request.security_groups, "security_groups[{}]"),
            ]
        )
        work.step("rules")
        self._firewall.take_groups(request.security_groups)
        self._firewall.put(request.instance_id, interfaces)
        timeout_s = seconds(request, "timeout", DEFAULT_TIMEOUT_S)
        self._firewall.ensure(request.instance_id, timeout_s=timeout_s)
        return pb.EnsureFilteringRulesResponse(
            interfaces=[self._filtered(interface) for interface in interfaces]
        )

    def unfilter_instance(
        self, request: pb.UnfilterInstanceRequest, work: Work
    ) -> pb.UnfilterInstanceResponse:
        """See Firewall."""
        instance = self._host.find(request.instance_id)
        work = self._host.observed(work, "unfilter_instance", instance)
        runs = instance is not None and instance.power_state not in _OFF
        work.ready([WrongStateError("its machine would be left unprotected")] if runs else [])
        work.step("unfilter")
        port_ids = [interface.port_id for interface in request.interfaces] or None
        gone = self._firewall.drop(request.instance_id, port_ids)
        return pb.UnfilterInstanceResponse(already_gone=not gone)

    def defer_filtering(
        self, request: pb.DeferFilteringRequest, work: Work
    ) -> pb.DeferFilteringResponse:
        """See Firewall."""
        work = self._host.observed(work, "defer_filtering", None)
        work.ready()
        work.step("defer")
        response = pb.DeferFilteringResponse()
        ends_s = self._firewall.defer(seconds(request, "timeout", _DEFER_S))
        response.apply_at.FromNanoseconds(int(ends_s * 1e9))
        return response

    def apply_filtering(
        self,
        request: pb.ApplyFilteringRequest,  # noqa: ARG002 - there is but one batch
        work: Work,
    ) -> pb.ApplyFilteringResponse:
        """See Firewall."""
        work = self._host.observed(work, "apply_filtering", None)
        work.ready()
        work.step("apply")
        return pb.ApplyFilteringResponse(instance_ids=self._firewall.apply())

    def _group_errors(self, groups: Sequence[pb.SecurityGroup], field: str) -> list[ContractError]:
        """`field` is the path of a group, with its number where there can be several."""
        reserved: list[ContractError] = [
            InvalidArgumentError(
                "this group lets nothing through, for good",
                field=f"{field.format(index)}.security_group_id",
            )
            for index, group in enumerate(groups)
            if NOBODY in (group.security_group_id, *remote_groups(group))
        ]
        return [*reserved, *self._firewall.too_many(groups)]

    def _filtered(self, interface: InterfaceSpec) -> pb.FilteredInterface:
        known, device = self._firewall.groups, host_device(interface)
        group_ids = list(interface.security_group_ids) if kind_of(interface).filtered else []
        return pb.FilteredInterface(
            port_id=interface.port_id,
            host_device=device if device and self._devices.exists(device) else "",
            security_group_ids=group_ids,
            unknown_group_ids=[group_id for group_id in group_ids if group_id not in known],
            rule_count=sum(len(known[g].rules) for g in group_ids if g in known),
        )


def _groups_of(change: pb.InterfaceSecurityGroups) -> list[str]:
    """Groups that an interface has from now on; none of the caller's closes it."""
    if change.security_group_ids or change.unfiltered:
        return list(change.security_group_ids)
    return [NOBODY]


def _with_groups(interface: InterfaceSpec, groups: Mapping[str, Sequence[str]]) -> InterfaceSpec:
    changed = InterfaceSpec()
    changed.CopyFrom(interface)
    if interface.port_id in groups:
        changed.security_group_ids[:] = groups[interface.port_id]
    return changed


def _set_groups(spec: InstanceSpec, groups: Mapping[str, Sequence[str]]) -> None:
    for interface in spec.interfaces:
        if interface.port_id in groups:
            interface.security_group_ids[:] = groups[interface.port_id]


def _change_errors(
    instance: Instance, changes: Iterable[pb.InterfaceSecurityGroups]
) -> list[ContractError]:
    errors: list[ContractError] = []
    for index, change in enumerate(changes):
        interface = spec_of(instance, change.port_id)
        if interface is None:
            errors.append(port_not_found(change.port_id, f"interfaces[{index}].port_id"))
        elif not kind_of(interface).filtered and not change.unfiltered:
            why = f"an interface of the kind {interface.WhichOneof('network')} has none"
            at = f"interfaces[{index}].security_group_ids"
            errors.append(UnsupportedError("security_groups", why=why, field=at))
    return errors


def _ports_errors(
    instance: Instance | None, interfaces: Sequence[InterfaceSpec]
) -> list[ContractError]:
    if instance is None:
        return list(list_errors(interfaces, "interfaces"))
    return [
        port_not_found(interface.port_id, f"interfaces[{index}].port_id")
        for index, interface in enumerate(interfaces)
        if spec_of(instance, interface.port_id) is None
    ]
