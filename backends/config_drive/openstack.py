"""The OpenStack layout, as cloud-init's ConfigDrive source and cloudbase-init read it.

Source: "Config drives" and "Metadata service" in Nova's user guide.
"""

import base64
from collections.abc import Mapping
from typing import Any

from backends.config_drive.facts import GuestFacts, encoded
from backends.guest_network import network_document

LABEL = "config-2"
# The newest version of the format, and the name under which readers find any.
_VERSIONS = ("2020-10-14", "latest")


def openstack_files(facts: GuestFacts, *, random_seed: bytes) -> Mapping[str, bytes]:
    """Content of the drive, by path; the seed is for the guest's random numbers."""
    documents = {
        "meta_data.json": encoded(_meta_data(facts, random_seed)),
        "network_data.json": encoded(network_document(facts.interfaces)),
        "vendor_data.json": encoded({}),
    }
    if facts.guest.user_data:
        documents["user_data"] = facts.guest.user_data
    files = {
        f"openstack/{version}/{name}": content
        for version in _VERSIONS
        for name, content in documents.items()
    }
    for number, file in enumerate(facts.guest.files):
        files[f"openstack{_content_path(number)}"] = file.content
    return files


def _meta_data(facts: GuestFacts, random_seed: bytes) -> dict[str, Any]:
    guest = facts.guest
    document: dict[str, Any] = {
        "uuid": facts.instance_id,
        "name": facts.name,
        "hostname": facts.hostname,
        "launch_index": 0,
        "meta": facts.metadata,
        "random_seed": base64.b64encode(random_seed).decode("ascii"),
        "devices": facts.devices,
    }
    if guest.ssh_public_keys:
        keys = {f"key{number}": key for number, key in enumerate(guest.ssh_public_keys)}
        document["public_keys"] = keys
        document["keys"] = [
            {"name": name, "type": "ssh", "data": key} for name, key in keys.items()
        ]
    if guest.admin_password:
        document["admin_pass"] = guest.admin_password
    if guest.files:
        document["files"] = [
            {"path": file.path, "content_path": _content_path(number)}
            for number, file in enumerate(guest.files)
        ]
    return document


def _content_path(number: int) -> str:
    return f"/content/{number:04}"
