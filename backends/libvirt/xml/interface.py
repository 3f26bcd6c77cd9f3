"""The <interface> of a domain.

Source: "Network interfaces" in libvirt's "Domain XML format".
"""

from dataclasses import dataclass

from backends.libvirt.xml.element import Element, number, one, text


@dataclass
class PciAddress(Element):
    """Where a device of the host is on its PCI bus; numbers as "0x03"."""

    tag = "address"
    type: str | None = text("@type")
    domain: str | None = text("@domain")
    bus: str | None = text("@bus")
    slot: str | None = text("@slot")
    function: str | None = text("@function")


@dataclass
class Limit(Element):
    """Average and peak in KiB/s, burst in KiB."""

    tag = "inbound"
    average: int | None = number("@average")
    peak: int | None = number("@peak")
    burst: int | None = number("@burst")


@dataclass
class Inbound(Limit):
    """Limit of what goes to the guest."""

    tag = "inbound"


@dataclass
class Outbound(Limit):
    """Limit of what comes from the guest."""

    tag = "outbound"


@dataclass
class Interface(Element):
    """A network interface."""

    tag = "interface"
    type: str | None = text("@type")
    managed: str | None = text("@managed")
    mac: str | None = text("mac/@address")
    source_type: str | None = text("source/@type")
    source_bridge: str | None = text("source/@bridge")
    source_network: str | None = text("source/@network")
    source_portgroup: str | None = text("source/@portgroup")
    source_device: str | None = text("source/@dev")
    source_path: str | None = text("source/@path")
    source_mode: str | None = text("source/@mode")
    source_address: PciAddress | None = one("source/address", PciAddress)
    vlan: int | None = number("vlan/tag/@id")
    port_type: str | None = text("virtualport/@type")
    port_interface: str | None = text("virtualport/parameters/@interfaceid")
    target: str | None = text("target/@dev")
    target_managed: str | None = text("target/@managed")
    model: str | None = text("model/@type")
    queues: int | None = number("driver/@queues")
    inbound: Inbound | None = one("bandwidth/inbound", Inbound)
    outbound: Outbound | None = one("bandwidth/outbound", Outbound)
    mtu: int | None = number("mtu/@size")
    link: str | None = text("link/@state")
    alias: str | None = text("alias/@name")
