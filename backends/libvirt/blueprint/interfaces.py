"""Network interfaces of a domain."""

from backends.libvirt.attached_disks import ALIAS_PREFIX
from backends.libvirt.xml.domain import Interface
from backends.plan import InstancePlan
from backends.plan.interfaces import mac_address


def planned_interfaces(plan: InstancePlan) -> list[Interface]:
    """The interfaces of an instance, in the order in which the guest sees them."""
    return [
        Interface(
            type="user",
            mac=mac_address(plan.instance_id, spec),
            model=spec.model or "virtio",
            mtu=spec.mtu or None,
            link="down" if spec.link_down else None,
            alias=f"{ALIAS_PREFIX}{spec.port_id}",
        )
        for spec in plan.spec.interfaces
    ]
