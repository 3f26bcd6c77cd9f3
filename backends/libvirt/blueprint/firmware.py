"""Firmware of a domain: libvirt chooses the file by what is asked for.

Source: "Guest firmware" in libvirt's knowledge base. The variables are a file of the
instance's own, made from the template that goes with the firmware.
"""

from pathlib import Path

from virtrpc.v1 import spec_pb2

from backends.libvirt.xml.domain import Domain
from backends.libvirt.xml.placement import FirmwareFeature
from backends.plan.machine import Machine

UEFI = (spec_pb2.FIRMWARE_TYPE_UEFI, spec_pb2.FIRMWARE_TYPE_UEFI_SECURE_BOOT)
"""Firmware that keeps variables in a file of the instance's own."""


def add_firmware(domain: Domain, machine: Machine, *, nvram: Path) -> None:
    """Puts the firmware into a domain; BIOS is what it has without."""
    if machine.firmware not in UEFI:
        return
    secure = machine.firmware == spec_pb2.FIRMWARE_TYPE_UEFI_SECURE_BOOT
    domain.firmware = "efi"
    domain.nvram = str(nvram)
    domain.firmware_features = [FirmwareFeature(name="secure-boot", enabled=secure)]
    if secure:
        domain.firmware_features.append(FirmwareFeature(name="enrolled-keys", enabled=True))
        domain.secure_loader = True
        domain.smm = "on"
