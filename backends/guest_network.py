"""The network configuration that a guest is given: as data for it, and as what applies it.

The data have the layout of OpenStack's network_data.json, which cloud-init reads;
the script uses `ip` alone and finds its devices by their MAC addresses.
"""

import json
import shlex
from collections.abc import Sequence
from ipaddress import ip_address, ip_interface
from typing import Any

from virtrpc.v1.instance_pb2 import AttachedInterface, Instance
from virtrpc.v1.spec_pb2 import InterfaceSpec

DATA_PATH = "/var/lib/virtrpc/network_data.json"


def network_data(instance: Instance) -> bytes:
    """The interfaces of an instance as network_data.json."""
    interfaces = [(spec, attached.mac_address) for spec, attached in _pairs(instance)]
    return json.dumps(network_document(interfaces), indent=1).encode()


def network_document(interfaces: Sequence[tuple[InterfaceSpec, str]]) -> dict[str, Any]:
    """Interfaces, each with its MAC address, in the layout of network_data.json."""
    return {
        "links": [
            {
                "id": spec.port_id,
                "type": "phy",
                "ethernet_mac_address": mac_address,
                "mtu": spec.mtu or None,
            }
            for spec, mac_address in interfaces
        ],
        "networks": [network for spec, _ in interfaces for network in _networks(spec)],
        "services": [
            {"type": "dns", "address": address}
            for address in sorted({dns for spec, _ in interfaces for dns in spec.dns_servers})
        ],
    }


def apply_script(instance: Instance) -> str:
    """A shell script that gives every interface its addresses and gateways again.

    An interface without addresses of its own is left to DHCP, which the guest runs.
    """
    lines = ["set -e"]
    for spec, attached in _pairs(instance):
        lines += _apply(spec, attached)
    return "\n".join(lines) + "\n"


def _pairs(instance: Instance) -> list[tuple[InterfaceSpec, AttachedInterface]]:
    machine = instance.effective if instance.HasField("effective") else instance.persistent
    attached = {interface.port_id: interface for interface in machine.interfaces}
    return [
        (spec, attached[spec.port_id])
        for spec in instance.spec.interfaces
        if spec.port_id in attached
    ]


def _networks(spec: InterfaceSpec) -> list[dict[str, Any]]:
    if not spec.addresses:
        return [{"id": spec.port_id, "link": spec.port_id, "type": "ipv4_dhcp"}]
    return [_network(spec, number) for number in range(len(spec.addresses))]


def _network(spec: InterfaceSpec, number: int) -> dict[str, Any]:
    interface = ip_interface(spec.addresses[number])
    gateway = gateway_of(spec.gateways, interface.version)
    any_address = "0.0.0.0" if interface.version == 4 else "::"  # noqa: S104 - the default route
    return {
        "id": f"{spec.port_id}-{number}",
        "link": spec.port_id,
        "type": f"ipv{interface.version}",
        "ip_address": str(interface.ip),
        "netmask": str(interface.netmask),
        "routes": [{"network": any_address, "netmask": any_address, "gateway": gateway}]
        if gateway
        else [],
    }


def gateway_of(gateways: Sequence[str], version: int) -> str | None:
    """The gateway of an IP version, if there is one."""
    return next((g for g in gateways if ip_address(g).version == version), None)


def _apply(spec: InterfaceSpec, attached: AttachedInterface) -> list[str]:
    mac = shlex.quote(attached.mac_address)
    lines = [
        f'for d in /sys/class/net/*; do [ "$(cat $d/address)" = {mac} ] && n=${{d##*/}}; done',
        f'[ -n "$n" ] || {{ echo no device {mac} >&2; exit 1; }}',
        'ip link set "$n" up',
    ]
    if spec.addresses:
        lines.append('ip addr flush dev "$n"')
    lines += [f'ip addr add {shlex.quote(a)} dev "$n"' for a in spec.addresses]
    lines += [f'ip route replace default via {shlex.quote(g)} dev "$n"' for g in spec.gateways]
    return [*lines, "n="]
