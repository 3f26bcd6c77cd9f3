"""The NoCloud layout of cloud-init.

Source: "NoCloud" and "Networking config version 2" in cloud-init's reference. It
has no place for a password and files: they are vendor data, which the user data
may overrule. JSON is YAML.
"""

import base64
from collections.abc import Mapping
from typing import Any

from virtrpc.v1.spec_pb2 import InterfaceSpec

from backends.config_drive.facts import GuestFacts, encoded
from backends.guest_network import gateway_of

LABEL = "cidata"
_ANYWHERE = {4: "0.0.0.0/0", 6: "::/0"}


def nocloud_files(facts: GuestFacts) -> Mapping[str, bytes]:
    """Content of the drive, by path."""
    return {
        "meta-data": encoded(_meta_data(facts)),
        "user-data": facts.guest.user_data,
        "vendor-data": b"#cloud-config\n" + encoded(_vendor_data(facts)),
        "network-config": encoded(_network_config(facts)),
    }


def _meta_data(facts: GuestFacts) -> dict[str, Any]:
    return {
        "instance-id": facts.instance_id,
        "local-hostname": facts.hostname,
        "public-keys": list(facts.guest.ssh_public_keys),
        "meta": facts.metadata,
        "devices": facts.devices,
    }


def _vendor_data(facts: GuestFacts) -> dict[str, Any]:
    config: dict[str, Any] = {}
    if facts.guest.admin_password:
        config["password"] = facts.guest.admin_password
        config["chpasswd"] = {"expire": False}
    if facts.guest.files:
        config["write_files"] = [
            {
                "path": file.path,
                "encoding": "b64",
                "content": base64.b64encode(file.content).decode("ascii"),
            }
            for file in facts.guest.files
        ]
    return config


def _network_config(facts: GuestFacts) -> dict[str, Any]:
    ethernets = {
        f"interface{number}": _ethernet(interface, mac)
        for number, (interface, mac) in enumerate(facts.interfaces)
    }
    return {"version": 2, "ethernets": ethernets}


def _ethernet(interface: InterfaceSpec, mac: str) -> dict[str, Any]:
    config: dict[str, Any] = {"match": {"macaddress": mac}}
    if interface.addresses:
        config["addresses"] = list(interface.addresses)
        config["routes"] = [
            {"to": anywhere, "via": gateway}
            for version, anywhere in _ANYWHERE.items()
            if (gateway := gateway_of(interface.gateways, version))
        ]
    else:
        config["dhcp4"] = True
    if interface.dns_servers:
        config["nameservers"] = {"addresses": list(interface.dns_servers)}
    if interface.mtu:
        config["mtu"] = interface.mtu
    return config
