"""The verbs of interfaces: the same for every backend, on what it does with machines."""

import time
from collections.abc import MutableSequence, Sequence

from virtrpc.v1 import interface_pb2 as pb
from virtrpc.v1.instance_pb2 import AttachedInterface, Instance
from virtrpc.v1.spec_pb2 import InterfaceSpec
from virtrpc.v1.types_pb2 import PowerState

from backends.contract import Interfaces
from backends.durations import seconds
from backends.errors import (
    AlreadyExistsError,
    ContractError,
    InstanceNotFoundError,
    NotFoundError,
    TimedOutError,
    WrongStateError,
)
from backends.host_facts import host_name
from backends.interfaces.host import InterfaceHost
from backends.interfaces.places import place_errors
from backends.interfaces.side import InterfaceSide, prepared_otherwise
from backends.plan.interfaces import (
    DEFAULT_MODEL,
    MAC_PREFIX,
    errors_of,
    host_device,
    list_errors,
    mac_address,
)
from backends.plan.needs import interface_needs, unmet
from backends.power_states import power_blockers
from backends.work import Undo, Work

_RUNNING, _PAUSED = PowerState.POWER_STATE_RUNNING, PowerState.POWER_STATE_PAUSED
_OFF = (PowerState.POWER_STATE_SHUTDOWN, PowerState.POWER_STATE_CRASHED)
_ATTACH_S, _DETACH_S, _RETRY_S = 60.0, 160.0, 20.0
# A guest that is still booting hears nothing, and QEMU takes a question anew after 5 s.
_UNDO_S, _UNDO_RETRY_S = 60.0, 5.0


class HostInterfaces(Interfaces):
    """Interfaces of the instances of one host."""

    def __init__(self, host: InterfaceHost, side: InterfaceSide) -> None:
        self._host = host
        self._side = side
        self._host_name = host_name()
        self.undo = {"take_out": self._take_out, "unprepare": side.book.give_up}

    def attach_interface(
        self, request: pb.AttachInterfaceRequest, work: Work
    ) -> pb.AttachInterfaceResponse:
        """See Interfaces."""
        instance, interface = self._host.managed(request.instance_id), request.interface
        work = self._host.observed(work, "attach_interface", instance)
        kept = spec_of(instance, interface.port_id)
        if kept is not None and not _is_asked_again(instance, kept, interface):
            work.ready([_differs(interface.port_id)])
        wanted = interface if kept is None else kept
        with self._side.book.claimed(instance.instance_id, [("interface", wanted)]) as taken:
            whole = kept is not None and _is_everywhere(instance, kept.port_id)
            work.ready([] if whole else [*taken, *self._attach_blockers(instance, wanted)])
            if not whole:
                self._attach(instance, wanted, work, seconds(request, "timeout", _ATTACH_S))
        told = self._host.tell(instance.instance_id)
        return pb.AttachInterfaceResponse(
            interface=attached_port(told, interface.port_id), instance=told
        )

    def detach_interface(
        self, request: pb.DetachInterfaceRequest, work: Work
    ) -> pb.DetachInterfaceResponse:
        """See Interfaces."""
        instance = self._host.managed(request.instance_id)
        work = self._host.observed(work, "detach_interface", instance)
        found = _find_attached(instance, request.port_id, request.mac_address)
        if found is None:
            work.ready()
            return self._detached_before(request, instance, work)
        work.ready(power_blockers(instance, _RUNNING, *_OFF))
        work.step("release")
        gone = self._host.release(
            instance.instance_id,
            found,
            work,
            timeout_s=seconds(request, "timeout", _DETACH_S),
            retry_s=seconds(request, "retry_interval", _RETRY_S) or _RETRY_S,
        )
        if gone:
            work.commit()
            work.step("forget")
            self._forget(instance, found)
        return pb.DetachInterfaceResponse(instance=self._host.tell(instance.instance_id))

    def plug_interfaces(
        self, request: pb.PlugInterfacesRequest, work: Work
    ) -> pb.PlugInterfacesResponse:
        """See Interfaces."""
        instance = self._host.managed(request.instance_id)
        work = self._host.observed(work, "plug_interfaces", instance)
        chosen, unknown = _chosen(instance, request.port_ids)
        errors = [
            error
            for index, interface in enumerate(chosen)
            for error in self._place_errors(interface, f"port_ids[{index}]")
        ]
        work.ready([*unknown, *errors])
        work.step("plug")
        self._side.put(instance.instance_id, chosen)
        found = [attached_port(instance, interface.port_id) for interface in chosen]
        return pb.PlugInterfacesResponse(interfaces=[one for one in found if one is not None])

    def unplug_interfaces(
        self, request: pb.UnplugInterfacesRequest, work: Work
    ) -> pb.UnplugInterfacesResponse:
        """See Interfaces."""
        instance = self._host.find(request.instance_id)
        work = self._host.observed(work, "unplug_interfaces", instance)
        own = list(instance.spec.interfaces) if instance is not None else []
        port_ids = {i.port_id for i in request.interfaces} or None
        work.ready(_not_in_use(instance, port_ids))
        work.step("unplug")
        gone = self._side.take_away(request.instance_id, [*own, *request.interfaces], port_ids)
        return pb.UnplugInterfacesResponse(port_ids=gone)

    def prepare_networks(
        self, request: pb.PrepareNetworksRequest, work: Work
    ) -> pb.PrepareNetworksResponse:
        """See Interfaces."""
        instance_id, interfaces = request.instance_id, list(request.interfaces)
        instance = self._host.find(instance_id)
        work = self._host.observed(work, "prepare_networks", instance)
        wanted = [(f"interfaces[{n}]", spec) for n, spec in enumerate(interfaces)]
        with self._side.book.claimed(instance_id, wanted) as taken:
            prepared = self._side.book.prepared(instance_id)
            blockers = [*taken, *list_errors(interfaces, "interfaces")]
            blockers += [e for at, spec in wanted for e in self._place_errors(spec, at)]
            if instance is not None:
                blockers = [WrongStateError("the instance exists: AttachInterface")]
            elif prepared is not None:
                blockers = [] if prepared == interfaces else [prepared_otherwise("interfaces")]
            work.ready(blockers)
            if prepared is None:
                work.step("reserve", Undo("unprepare", {"instance_id": instance_id}))
                self._side.book.reserve(instance_id, interfaces)
        reserved = [_reserved(instance_id, interface) for interface in interfaces]
        return pb.PrepareNetworksResponse(interfaces=reserved)

    def clean_networks_preparation(
        self, request: pb.CleanNetworksPreparationRequest, work: Work
    ) -> pb.CleanNetworksPreparationResponse:
        """See Interfaces."""
        work = self._host.observed(work, "clean_networks_preparation", None)
        work.ready()
        work.step("give-up")
        there = self._side.book.give_up(request.instance_id)
        return pb.CleanNetworksPreparationResponse(already_gone=not there)

    def get_interface_policy(
        self,
        request: pb.GetInterfacePolicyRequest,  # noqa: ARG002 - the same for all instances
    ) -> pb.GetInterfacePolicyResponse:
        """See Interfaces."""
        return pb.GetInterfacePolicyResponse(mac_prefix=MAC_PREFIX, binding_host_id=self._host_name)

    def _attach_blockers(self, instance: Instance, interface: InterfaceSpec) -> list[ContractError]:
        running = instance.HasField("effective")
        return [
            *power_blockers(instance, _RUNNING, _PAUSED, *_OFF),
            *errors_of(interface, "interface"),
            *self._place_errors(interface, "interface"),
            *(self._host.hot_plug_errors(instance, interface) if running else ()),
        ]

    def _place_errors(self, interface: InterfaceSpec, field: str) -> list[ContractError]:
        """That the host can carry such an interface, and has what it is connected to."""
        missing = unmet([*interface_needs(interface, field)], self._host.features)
        if missing:
            return missing
        return [
            *place_errors(interface, field, self._side.devices),
            *self._host.network_errors(interface, field),
        ]

    def _attach(
        self, instance: Instance, interface: InterfaceSpec, work: Work, timeout_s: float
    ) -> None:
        instance_id, end = instance.instance_id, time.monotonic() + timeout_s
        undo = Undo("take_out", {"interface": f"{instance_id}/{interface.port_id}"})
        known = attached_port(instance, interface.port_id) is not None
        work.step("filter", None if known else undo)
        self._side.put(instance_id, [interface])
        work.step("specification")
        self._host.change_spec(instance_id, lambda spec: _add(spec.interfaces, interface))
        work.step("attach")
        if time.monotonic() > end:
            why = f"the host took longer than {timeout_s:g} s"
            raise TimedOutError(why, reason="INTERFACE_TIMEOUT")
        # The last that can fail: what is plugged in, a guest may not let go of for long.
        self._host.plug_in(instance_id, interface)

    def _forget(self, instance: Instance, attached: AttachedInterface) -> None:
        """The device has gone from the machine: so does everything that belongs to it."""
        instance_id, port_id = instance.instance_id, attached.port_id
        self._host.forget(instance_id, attached)
        spec = spec_of(instance, port_id)
        if port_id:
            self._side.take_away(instance_id, [] if spec is None else [spec], [port_id])
            self._host.change_spec(instance_id, lambda spec: _remove(spec.interfaces, port_id))

    def _detached_before(
        self, request: pb.DetachInterfaceRequest, instance: Instance, work: Work
    ) -> pb.DetachInterfaceResponse:
        """Not attached; what a call that died has left of it goes all the same."""
        spec = spec_of(instance, request.port_id)
        if spec is not None and not request.mac_address:
            work.step("forget")
            self._forget(instance, AttachedInterface(port_id=request.port_id))
        told = self._host.tell(request.instance_id)
        return pb.DetachInterfaceResponse(already_gone=True, instance=told)

    def _take_out(self, interface: str) -> None:
        """Undoes an attach, as far as it came.

        A guest that does not let go in time keeps the device, filtered, until it is off.
        """
        instance_id, port_id = interface.split("/")
        try:
            instance = self._host.managed(instance_id)
        except InstanceNotFoundError:
            self._side.take_away(instance_id, (), [port_id])
            return
        attached = attached_port(instance, port_id) or AttachedInterface(port_id=port_id)
        self._host.forget(instance_id, attached)
        self._host.change_spec(instance_id, lambda spec: _remove(spec.interfaces, port_id))
        self._host.release(instance_id, attached, None, timeout_s=_UNDO_S, retry_s=_UNDO_RETRY_S)
        self._side.take_away(instance_id, (), [port_id])
        self._host.tell(instance_id)


def spec_of(instance: Instance, port_id: str) -> InterfaceSpec | None:
    """The interface of a port as it was asked for."""
    return next((i for i in instance.spec.interfaces if i.port_id == port_id), None)


def attached_port(instance: Instance, port_id: str) -> AttachedInterface | None:
    """A port as it is attached: to the running machine, else to the one that starts next."""
    return next((i for i in _attached(instance) if i.port_id == port_id), None)


def _attached(instance: Instance) -> Sequence[AttachedInterface]:
    return [*instance.effective.interfaces, *instance.persistent.interfaces]


def _find_attached(instance: Instance, port_id: str, mac: str) -> AttachedInterface | None:
    fitting = (
        interface
        for interface in _attached(instance)
        if (not port_id or interface.port_id == port_id)
        and (not mac or interface.mac_address == mac)
    )
    return next(fitting, None)


def _is_everywhere(instance: Instance, port_id: str) -> bool:
    """It is in the running machine, if there is one, and in the one that starts next."""
    machines = [instance.persistent]
    machines += [instance.effective] if instance.HasField("effective") else []
    return all(any(i.port_id == port_id for i in machine.interfaces) for machine in machines)


def _is_asked_again(instance: Instance, kept: InterfaceSpec, asked: InterfaceSpec) -> bool:
    """It is as it was, but for what is left empty now or was then and has been chosen."""
    chosen = InterfaceSpec()
    chosen.CopyFrom(kept)
    chosen.mac_address = mac_address(instance.instance_id, kept)
    chosen.model = kept.model or DEFAULT_MODEL
    return all(getattr(chosen, field.name) == value for field, value in asked.ListFields())


def _differs(port_id: str) -> AlreadyExistsError:
    why = f"the instance has port {port_id} in another way: detach it first"
    return AlreadyExistsError(why, reason="INTERFACE_DIFFERS", field="interface.port_id")


def _chosen(
    instance: Instance, port_ids: Sequence[str]
) -> tuple[list[InterfaceSpec], list[ContractError]]:
    """Interfaces by port, all where none is named, and the ports that there are not."""
    if not port_ids:
        return list(instance.spec.interfaces), []
    found = [spec_of(instance, port_id) for port_id in port_ids]
    unknown: list[ContractError] = [
        port_not_found(port_id, f"port_ids[{index}]")
        for index, port_id in enumerate(port_ids)
        if found[index] is None
    ]
    return [interface for interface in found if interface is not None], unknown


def port_not_found(port_id: str, field: str) -> NotFoundError:
    """The instance has no such interface."""
    why = f"the instance has no interface {port_id}"
    return NotFoundError(why, reason="PORT_NOT_FOUND", field=field)


def _not_in_use(instance: Instance | None, port_ids: set[str] | None) -> list[ContractError]:
    if instance is None:
        return []
    used = {i.port_id for i in instance.effective.interfaces}
    if instance.power_state in _OFF or not (used if port_ids is None else used & port_ids):
        return []
    return [WrongStateError("the machine uses the interfaces: DetachInterface")]


def _reserved(instance_id: str, interface: InterfaceSpec) -> AttachedInterface:
    return AttachedInterface(
        port_id=interface.port_id,
        mac_address=mac_address(instance_id, interface),
        model=interface.model or DEFAULT_MODEL,
        host_device=host_device(interface),
        mtu=interface.mtu,
        link_down=interface.link_down,
    )


def _add(interfaces: MutableSequence[InterfaceSpec], interface: InterfaceSpec) -> None:
    if all(other.port_id != interface.port_id for other in interfaces):
        interfaces.append(interface)


def _remove(interfaces: MutableSequence[InterfaceSpec], port_id: str) -> None:
    left = [other for other in interfaces if other.port_id != port_id]
    del interfaces[:]
    interfaces.extend(left)
