"""Interfaces of domains: plugged into the configuration and the running machine, and out.

ask ──▶ wait ──DEVICE_REMOVED──▶ gone
 ▲        │ ╲──DEVICE_REMOVAL_FAILED──▶ refused
 ╰ retry ─╯──timeout──▶ not released
"""

import time
from collections.abc import Callable, Iterable, Mapping

import libvirt
from virtrpc.v1.instance_pb2 import AttachedInterface, Instance
from virtrpc.v1.spec_pb2 import InstanceSpec, InterfaceSpec

from backends.errors import ContractError, NoRoomError, TimedOutError, WrongStateError
from backends.libvirt.attached_disks import ALIAS_PREFIX
from backends.libvirt.blueprint.interfaces import interface_alias, planned_interface
from backends.libvirt.blueprint.slots import free_slots
from backends.libvirt.domains import Domains
from backends.libvirt.networks import network_errors
from backends.libvirt.probe import Probed
from backends.libvirt.removals import Removal
from backends.libvirt.xml.element import Node, parse, to_text
from backends.libvirt.xml.interface import Interface
from backends.specification import require_managed
from backends.work import Work

_CONFIG, _LIVE = libvirt.VIR_DOMAIN_AFFECT_CONFIG, libvirt.VIR_DOMAIN_AFFECT_LIVE
_LOOK_S, _SETTLE_S = 0.2, 5.0
# The guest has not let go since it was asked before, or the machine has just ended.
_ASKED_ALREADY = (libvirt.VIR_ERR_OPERATION_FAILED, libvirt.VIR_ERR_INTERNAL_ERROR)
_GONE = (libvirt.VIR_ERR_DEVICE_MISSING, libvirt.VIR_ERR_OPERATION_INVALID)


class LibvirtInterfaceHost:
    """See backends.interfaces.host.InterfaceHost."""

    def __init__(self, domains: Domains, probed: Probed) -> None:
        self._domains = domains
        self._probed = probed

    @property
    def features(self) -> Mapping[str, str]:
        """See InterfaceHost."""
        return self._probed.features

    def find(self, instance_id: str) -> Instance | None:
        """See InterfaceHost."""
        domain = self._domains.find(instance_id)
        return None if domain is None else self._domains.read(domain)

    def managed(self, instance_id: str) -> Instance:
        """See InterfaceHost."""
        return self._domains.managed(instance_id)[1]

    def tell(self, instance_id: str) -> Instance:
        """See InterfaceHost."""
        domain, _ = self._domains.managed(instance_id)
        return require_managed(self._domains.tell(domain), instance_id)

    def observed(self, work: Work, verb: str, instance: Instance | None) -> Work:  # noqa: ARG002
        """See InterfaceHost."""
        return work

    def network_errors(self, interface: InterfaceSpec, field: str) -> Iterable[ContractError]:
        """See InterfaceHost."""
        return network_errors(self._domains, interface, field)

    def hot_plug_errors(self, instance: Instance, interface: InterfaceSpec) -> list[ContractError]:
        """See InterfaceHost."""
        document = self._document(self._domain(instance.instance_id), _LIVE)
        if interface.HasField("vhost_user") and document.find("memoryBacking/access") is None:
            why = "the machine's memory is not shared with the switch: power it off first"
            return [WrongStateError(why, reason="NOT_HOT_PLUGGABLE", field="interface.vhost_user")]
        if free_slots(document) == 0:
            why = "the machine has no free slot: power it off first"
            return [NoRoomError(why, reason="NO_SLOT", field="interface")]
        return []

    def plug_in(self, instance_id: str, interface: InterfaceSpec) -> None:
        """See InterfaceHost."""
        domain, device = self._domain(instance_id), planned_interface(instance_id, interface)
        for flag in self._configurations(domain):
            if self._find(domain, flag, alias=device.alias) is None:
                self._call(domain, domain.attachDeviceFlags, to_text(device.to_xml()), flag)

    def release(
        self,
        instance_id: str,
        attached: AttachedInterface,
        work: Work | None,
        *,
        timeout_s: float,
        retry_s: float,
    ) -> bool:
        """See InterfaceHost."""
        domain = self._domain(instance_id)
        alias = self._alias(domain, attached)
        if alias is None:
            if work is None:
                self._domains.require_known(instance_id)
            return True
        with self._domains.removals.expected(instance_id, alias) as removal:
            end = time.monotonic() + timeout_s
            while not self._asked(domain, alias, removal, work, min(end, _in(retry_s))):
                if timeout_s == 0:
                    return False
                if time.monotonic() >= end:
                    raise TimedOutError(
                        f"the guest has not released the interface within {timeout_s:g} s",
                        reason="DEVICE_NOT_RELEASED",
                    )
        self._domains.note_devices(domain)
        return True

    def forget(self, instance_id: str, attached: AttachedInterface) -> None:
        """See InterfaceHost."""
        domain = self._domain(instance_id)
        node = self._find(domain, _CONFIG, port=attached.port_id, mac=attached.mac_address)
        if node is not None:
            self._call(domain, domain.detachDeviceFlags, to_text(node), _CONFIG)

    def change_spec(self, instance_id: str, change: Callable[[InstanceSpec], None]) -> None:
        """See InterfaceHost."""
        self._domains.amend_own(self._domain(instance_id), lambda own: change(own.spec))

    def _asked(
        self,
        domain: libvirt.virDomain,
        alias: str,
        removal: Removal,
        work: Work | None,
        until: float,
    ) -> bool:
        """Asks the guest once and waits; True when the device has gone.

        Raises DEVICE_RELEASE_REFUSED.
        """
        removal.asked()
        self._ask(domain, alias)
        said = False
        while not said:
            said = removal.wait(max(0.0, min(_LOOK_S, until - time.monotonic())))
            if work is not None:
                work.checkpoint()
            if self._is_gone(domain, alias):
                return True
            if not said and time.monotonic() >= until:
                return False
        if removal.refused:
            why = "the guest will not release the interface"
            raise WrongStateError(why, reason="DEVICE_RELEASE_REFUSED")
        return self._settled(domain, alias)

    def _ask(self, domain: libvirt.virDomain, alias: str) -> None:
        try:
            domain.detachDeviceAlias(alias, _LIVE)
        except libvirt.libvirtError as error:
            # QEMU does not take the same question twice while the guest thinks about it.
            if error.get_error_code() not in (*_GONE, *_ASKED_ALREADY):
                raise self._domains.failed(error, domain.UUIDString()) from error

    def _settled(self, domain: libvirt.virDomain, alias: str) -> bool:
        """libvirt takes a device out of its document a moment after it has said so."""
        end = _in(_SETTLE_S)
        while not self._is_gone(domain, alias):
            if time.monotonic() >= end:
                return False
            time.sleep(_LOOK_S / 4)  # no event tells of it
        return True

    def _is_gone(self, domain: libvirt.virDomain, alias: str) -> bool:
        """Also where the whole machine has ended."""
        if not self._call(domain, domain.isActive):
            return True
        return self._find(domain, _LIVE, alias=alias) is None

    def _alias(self, domain: libvirt.virDomain, attached: AttachedInterface) -> str | None:
        """Of a device in the running machine; None: it is not there, or nothing runs."""
        if not self._call(domain, domain.isActive):
            return None
        node = self._find(domain, _LIVE, port=attached.port_id, mac=attached.mac_address)
        return None if node is None else Interface.from_xml(node).alias

    def _find(
        self,
        domain: libvirt.virDomain,
        flag: int,
        *,
        alias: str | None = None,
        port: str = "",
        mac: str = "",
    ) -> Node | None:
        """An interface by its alias, or by its port, or by its MAC address.

        One that was adopted has no port in its name.
        """
        wanted = alias or (interface_alias(port) if port else None)
        for node in self._document(domain, flag).iterfind("devices/interface"):
            found = Interface.from_xml(node)
            ours = (found.alias or "").startswith(ALIAS_PREFIX)
            if found.alias == wanted if wanted and (alias or ours) else found.mac == mac:
                return node
        return None

    def _configurations(self, domain: libvirt.virDomain) -> list[int]:
        """The running machine first: what that refuses is not to be there at the next start."""
        return [_LIVE, _CONFIG] if self._call(domain, domain.isActive) else [_CONFIG]

    def _document(self, domain: libvirt.virDomain, flag: int) -> Node:
        inactive = libvirt.VIR_DOMAIN_XML_INACTIVE if flag == _CONFIG else 0
        return parse(str(self._call(domain, domain.XMLDesc, inactive)))

    def _domain(self, instance_id: str) -> libvirt.virDomain:
        return self._domains.managed(instance_id)[0]

    def _call(
        self, domain: libvirt.virDomain, call: Callable[..., object], *arguments: object
    ) -> object:
        try:
            return call(*arguments)
        except libvirt.libvirtError as error:
            raise self._domains.failed(error, domain.UUIDString()) from error


def _in(seconds: float) -> float:
    return time.monotonic() + seconds
