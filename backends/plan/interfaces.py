"""Interfaces of a specification: their addresses on the wire, and what is wrong with them."""

import hashlib
from collections.abc import Iterator

from virtrpc.v1.spec_pb2 import InstanceSpec, InterfaceSpec

from backends.errors import ContractError, InvalidArgumentError

_LOCALLY_ADMINISTERED = "52"  # the first byte's second bit (IEEE 802, section 8.2)


def mac_address(instance_id: str, interface: InterfaceSpec) -> str:
    """The address that is asked for, or one that is the same whenever it is made."""
    if interface.mac_address:
        return interface.mac_address
    digest = hashlib.sha256(f"{instance_id}/{interface.port_id}".encode()).hexdigest()
    return ":".join((_LOCALLY_ADMINISTERED, *(digest[at : at + 2] for at in range(0, 10, 2))))


def interface_errors(spec: InstanceSpec) -> Iterator[ContractError]:
    """Ports and addresses that are given twice."""
    for name, reason in (("port_id", "PORT_TAKEN"), ("mac_address", "MAC_ADDRESS_TAKEN")):
        seen: set[str] = set()
        for index, interface in enumerate(spec.interfaces):
            value = getattr(interface, name)
            if value in seen:
                field = f"spec.interfaces[{index}].{name}"
                why = f"another interface has the {name} {value}"
                yield InvalidArgumentError(why, field=field, reason=reason)
            seen |= {value} - {""}
