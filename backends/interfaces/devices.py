"""Network devices of the host, as the kernel shows them in the daemon's network namespace.

Source: Documentation/ABI/testing/sysfs-class-net of the kernel. What is asked is read
anew each time: devices come and go without a word to us.
"""

import subprocess
from pathlib import Path

_CLASS = Path("/sys/class/net")
_PCI = Path("/sys/bus/pci/devices")
_IFF_UP = 0x1
_TIMEOUT_S = 10


class HostDevices:
    """Devices by name."""

    def exists(self, name: str) -> bool:
        """There is such a device."""
        return (_CLASS / name).exists()

    def is_up(self, name: str) -> bool:
        """It was set up; False where there is none."""
        try:
            flags = (_CLASS / name / "flags").read_text(encoding="ascii")
        except OSError:
            return False
        return bool(int(flags, 16) & _IFF_UP)

    def is_bridge(self, name: str) -> bool:
        """It is a bridge of the kernel."""
        return (_CLASS / name / "bridge").exists()

    def is_tap(self, name: str) -> bool:
        """It is a tap (or tun) device."""
        return (_CLASS / name / "tun_flags").exists()

    def is_virtual_function(self, pci_address: str) -> bool:
        """It is a virtual function of an SR-IOV device."""
        return (_PCI / pci_address / "physfn").exists()

    def remove(self, name: str) -> bool:
        """Removes a device that nobody holds open; False where there was none."""
        if not self.exists(name):
            return False
        subprocess.run(
            ["ip", "link", "delete", "dev", name],
            check=False,
            capture_output=True,
            timeout=_TIMEOUT_S,
        )
        return not self.exists(name)
