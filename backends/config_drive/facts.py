"""What both layouts tell a guest, taken from the plan of its instance."""

import json
import re
from collections.abc import Iterator
from typing import Any

from virtrpc.v1.spec_pb2 import GuestConfig

from backends.plan import InstancePlan
from backends.plan.interfaces import mac_address
from backends.specification import instance_name

_NOT_IN_HOSTNAME = re.compile(r"[^A-Za-z0-9.-]+")
_LONGEST_LABEL = 63  # RFC 1035, section 2.3.4


class GuestFacts:
    """What a guest is told."""

    def __init__(self, plan: InstancePlan) -> None:
        self.instance_id = plan.instance_id
        self.name = instance_name(plan.instance_id, plan.spec)
        self.metadata = dict(plan.spec.metadata)
        self.guest: GuestConfig = plan.spec.guest
        self.interfaces = [
            (interface, mac_address(plan.instance_id, interface))
            for interface in plan.spec.interfaces
        ]
        """Each with its MAC address."""
        self.devices = [*_tagged_disks(plan), *self._tagged_interfaces()]
        """Devices that have a role in the guest."""

    @property
    def hostname(self) -> str:
        """Host name as asked for, or what of the instance's name can be one."""
        usable = _NOT_IN_HOSTNAME.sub("-", self.name)[:_LONGEST_LABEL].strip("-.")
        return self.guest.hostname or usable or self.instance_id

    def _tagged_interfaces(self) -> Iterator[dict[str, Any]]:
        for interface, mac in self.interfaces:
            if interface.tag:
                yield {"type": "nic", "mac": mac, "tags": [interface.tag]}


def _tagged_disks(plan: InstancePlan) -> Iterator[dict[str, Any]]:
    for disk in plan.disks:
        if disk.tag:
            path = f"/dev/{disk.device_name}"
            yield {"type": "disk", "path": path, "serial": disk.serial, "tags": [disk.tag]}


def encoded(document: dict[str, Any]) -> bytes:
    """A document as a file of the drive."""
    return json.dumps(document, sort_keys=True).encode("utf-8")
