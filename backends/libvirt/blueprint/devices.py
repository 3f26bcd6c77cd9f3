"""Devices of a domain that are neither disk nor interface."""

from pathlib import Path

from backends.libvirt.xml.domain import (
    Balloon,
    Channel,
    Domain,
    Graphics,
    Input,
    Rng,
    Serial,
    Tpm,
    Video,
    Watchdog,
)
from backends.plan.machine import Machine

_STATS_PERIOD_S = 10
AGENT_CHANNEL = "org.qemu.guest_agent.0"
_WATCHDOG_MODEL = "i6300esb"


def add_devices(domain: Domain, machine: Machine, *, console_log: Path) -> None:
    """Puts consoles, channels and the like into a domain."""
    domain.serials = [_serial(port, console_log) for port in range(machine.serial_ports)]
    if machine.guest_agent:
        domain.channels = [Channel(type="unix", target_type="virtio", target_name=AGENT_CHANNEL)]
    _add_graphics(domain, machine.graphics)
    domain.balloon = Balloon(model="virtio", stats_period_s=_STATS_PERIOD_S)
    if machine.rng is not None:
        domain.rng = Rng(
            model="virtio",
            backend_model="random",
            backend="/dev/urandom",
            rate_bytes=machine.rng.rate_bytes,
            rate_period_ms=machine.rng.rate_period_ms if machine.rng.rate_bytes else None,
        )
    if machine.watchdog_action is not None:
        domain.watchdogs = [Watchdog(model=_WATCHDOG_MODEL, action=machine.watchdog_action)]
    if machine.tpm is not None:
        tpm = machine.tpm
        domain.tpm = Tpm(model=tpm.model, type="emulator", version=tpm.version)


def _serial(port: int, console_log: Path) -> Serial:
    """The first one is the console, which is logged."""
    if port:
        return Serial(type="pty", port=port)
    return Serial(type="pty", log_file=str(console_log), log_append="on", port=port)


def _add_graphics(domain: Domain, graphics: str | None) -> None:
    """A screen on a Unix socket, whose path libvirt chooses below its own root.

    The plain VGA device works before the guest's drivers do, in firmware and boot
    loader too; a tablet makes the guest's pointer follow the viewer's.
    """
    if graphics is None:
        domain.video = Video(model="none")
        return
    domain.video = Video(model="vga")
    domain.graphics = [Graphics(type=graphics, listen="socket")]
    domain.inputs = [Input(type="tablet", bus="usb")]
