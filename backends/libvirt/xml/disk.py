"""Disks of a domain: local ones and those of storage servers.

Source: "Hard drives, floppy disks, CDROMs" in libvirt's "Domain XML format".
"""

from dataclasses import dataclass

from backends.libvirt.xml.element import Element, flag, many, nested, number, one, text


@dataclass
class StorageHost(Element):
    """A server that a disk's bytes are on."""

    tag = "host"
    name: str | None = text("@name")
    port: int | None = number("@port")
    transport: str | None = text("@transport")
    socket: str | None = text("@socket")


@dataclass
class Auth(Element):
    """Who the host is to a server; the password is a secret of libvirt's."""

    tag = "auth"
    username: str | None = text("@username")
    secret_type: str | None = text("secret/@type")
    secret_uuid: str | None = text("secret/@uuid")


@dataclass
class Encryption(Element):
    """Encryption by QEMU; the passphrase is a secret of libvirt's."""

    tag = "encryption"
    format: str | None = text("@format")
    secret_type: str | None = text("secret/@type")
    secret_uuid: str | None = text("secret/@uuid")


@dataclass
class IoTune(Element):
    """Limits on a disk's I/O."""

    tag = "iotune"
    total_bytes_per_s: int | None = number("total_bytes_sec")
    read_bytes_per_s: int | None = number("read_bytes_sec")
    write_bytes_per_s: int | None = number("write_bytes_sec")
    total_iops: int | None = number("total_iops_sec")
    read_iops: int | None = number("read_iops_sec")
    write_iops: int | None = number("write_iops_sec")
    burst_total_bytes_per_s: int | None = number("total_bytes_sec_max")
    burst_total_iops: int | None = number("total_iops_sec_max")


@dataclass
class BackingFile(Element):
    """What a disk's file is based on."""

    tag = "backingStore"
    type: str | None = text("@type")
    format: str | None = text("format/@type")
    file: str | None = text("source/@file")


@dataclass
class Disk(Element):
    """A disk, CD-ROM or LUN."""

    tag = "disk"
    type: str | None = text("@type")
    device: str | None = text("@device")
    driver_name: str | None = text("driver/@name")
    format: str | None = text("driver/@type")
    cache: str | None = text("driver/@cache")
    discard: str | None = text("driver/@discard")
    source_file: str | None = text("source/@file")
    source_device: str | None = text("source/@dev")
    protocol: str | None = text("source/@protocol")
    source_name: str | None = text("source/@name")
    tls: str | None = text("source/@tls")
    hosts: list[StorageHost] = many("source/host", StorageHost)
    initiator: str | None = text("source/initiator/iqn/@name")
    auth: Auth | None = one("source/auth", Auth)
    encryption: Encryption | None = one("source/encryption", Encryption)
    chain: list[BackingFile] | None = nested("backingStore", BackingFile)
    """The nearest first; None: whoever opens the file finds out by itself."""
    target: str | None = text("target/@dev")
    bus: str | None = text("target/@bus")
    iotune: IoTune | None = one("iotune", IoTune)
    read_only: bool = flag("readonly")
    shareable: bool = flag("shareable")
    serial: str | None = text("serial")
    boot_order: int | None = number("boot/@order")
    alias: str | None = text("alias/@name")
