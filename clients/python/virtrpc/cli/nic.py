"""Network interfaces as `--nic` notes them: `KIND[=WHERE][,KEY=VALUE…]`.

    user                            NAT by QEMU itself
    bridge=br0  network=default     a bridge of the host, a network of libvirt
    ovs=br-int  macvtap=eth0        Open vSwitch, macvtap
    tap[=tap7]  vhost-user=/path  hostdev=0000:03:10.2

Keys: mac, model, mtu, queues, tag, vlan, port (a UUID; else made from the instance's id),
link=down, spoofing=allowed; and as often as need be address, gateway, dns and group.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable

from virtrpc.cli.parameters import Converted, pair
from virtrpc.v1.spec_pb2 import InterfaceSpec


def _user(spec: InterfaceSpec, _where: str) -> None:
    spec.user.SetInParent()


def _bridge(spec: InterfaceSpec, where: str) -> None:
    spec.bridge.bridge = where


def _network(spec: InterfaceSpec, where: str) -> None:
    spec.libvirt_network.network = where


def _open_vswitch(spec: InterfaceSpec, where: str) -> None:
    spec.open_vswitch.bridge = where


def _macvtap(spec: InterfaceSpec, where: str) -> None:
    spec.macvtap.device = where


def _tap(spec: InterfaceSpec, where: str) -> None:
    spec.tap.SetInParent()
    spec.tap.device = where


def _vhost_user(spec: InterfaceSpec, where: str) -> None:
    spec.vhost_user.socket_path = where


def _host_device(spec: InterfaceSpec, where: str) -> None:
    spec.host_device.pci_address = where


_KINDS: dict[str, Callable[[InterfaceSpec, str], None]] = {
    "user": _user,
    "bridge": _bridge,
    "network": _network,
    "ovs": _open_vswitch,
    "macvtap": _macvtap,
    "tap": _tap,
    "vhost-user": _vhost_user,
    "hostdev": _host_device,
}
_NEED_NO_PLACE = ("user", "tap")


# What a key sets: a field, and how its value is read.
_FIELDS: dict[str, tuple[str, Callable[[str], object]]] = {
    "mac": ("mac_address", str.lower),
    "model": ("model", str),
    "mtu": ("mtu", int),
    "queues": ("queues", int),
    "tag": ("tag", str),
    "port": ("port_id", lambda value: str(uuid.UUID(value))),
}
_LISTS = {
    "address": "addresses",
    "gateway": "gateways",
    "dns": "dns_servers",
    "group": "security_group_ids",
}
_SWITCHES = {"link=down": "link_down", "spoofing=allowed": "port_security_disabled"}
_KEYS = (*_FIELDS, *_LISTS, "vlan", *_SWITCHES)


def _set(spec: InterfaceSpec, key: str, value: str) -> None:
    if key in _FIELDS:
        name, read = _FIELDS[key]
        setattr(spec, name, read(value))
    elif key in _LISTS:
        getattr(spec, _LISTS[key]).append(value)
    elif f"{key}={value}" in _SWITCHES:
        setattr(spec, _SWITCHES[f"{key}={value}"], True)
    elif key == "vlan" and spec.WhichOneof("network") in ("open_vswitch", "host_device"):
        getattr(spec, spec.WhichOneof("network") or "").vlan = int(value)
    else:
        raise ValueError(f"{key}={value} is nothing of this --nic: {', '.join(_KEYS)}")


def interface(text: str) -> InterfaceSpec:
    """The interface that is noted; `port_id` stays empty where none is.

    Raises ValueError for what notes none.
    """
    network, *settings = text.split(",")
    kind, _equals, where = network.partition("=")
    if kind not in _KINDS:
        raise ValueError(f"{kind!r} is not a kind of network: {', '.join(_KINDS)}")
    if not where and kind not in _NEED_NO_PLACE:
        raise ValueError(f"{kind!r} needs a place: {kind}=…")
    spec = InterfaceSpec()
    _KINDS[kind](spec, where)
    for setting in settings:
        _set(spec, *pair(setting))
    return spec


def with_ports(instance_id: str, interfaces: Iterable[InterfaceSpec]) -> list[InterfaceSpec]:
    """The interfaces, those without a port given one.

    Made from the instance's id: the same command notes the same specification,
    so repeating it is no conflict.
    """
    specs = []
    for index, given in enumerate(interfaces):
        spec = InterfaceSpec()
        spec.CopyFrom(given)
        spec.port_id = spec.port_id or str(uuid.uuid5(uuid.UUID(instance_id), f"nic{index}"))
        specs.append(spec)
    return specs


NIC = Converted("nic", interface)
