"""The machine as specification and extra specs together ask for it.

Where both say something, the specification's `machine` prevails over the flavor, as
image properties do in Nova; where they exclude each other, the request is refused.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from virtrpc.v1 import spec_pb2
from virtrpc.v1.spec_pb2 import InstanceSpec

from backends.errors import ContractError
from backends.plan.extra_specs import ExtraSpecs, invalid_extra_spec

_WATCHDOG_ACTIONS: Mapping[int, str] = {
    spec_pb2.WATCHDOG_ACTION_RESET: "reset",
    spec_pb2.WATCHDOG_ACTION_POWEROFF: "poweroff",
    spec_pb2.WATCHDOG_ACTION_PAUSE: "pause",
    spec_pb2.WATCHDOG_ACTION_NONE: "none",
}
_GRAPHICS: Mapping[int, str] = {
    spec_pb2.GRAPHICS_TYPE_VNC: "vnc",
    spec_pb2.GRAPHICS_TYPE_SPICE: "spice",
}


@dataclass(frozen=True, kw_only=True)
class VirtualTpm:
    """A virtual TPM."""

    model: str
    """Either "tpm-crb" or "tpm-tis"."""
    version: str
    """Either "2.0" or "1.2"."""


@dataclass(frozen=True, kw_only=True)
class RandomSource:
    """A random number generator; a rate of None is unlimited."""

    rate_bytes: int | None = None
    rate_period_ms: int | None = None


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Devices and properties of a machine."""

    firmware: "spec_pb2.FirmwareType.ValueType"
    """Never unspecified."""
    machine_type: str
    """Empty: the host's default."""
    cpu_model: str
    """A mode or a model; empty: the backend's choice."""
    tpm: VirtualTpm | None
    watchdog_action: str | None
    """One of "reset", "poweroff", "pause" and "none"; None: no watchdog."""
    rng: RandomSource | None
    graphics: str | None
    """Either "vnc" or "spice"; None: no graphics device."""
    serial_ports: int
    guest_agent: bool
    boot_menu: bool
    pmu: bool | None
    """None: as the hypervisor has it."""
    hypervisor_hidden: bool


def read_machine(spec: InstanceSpec, extra: ExtraSpecs) -> tuple[Machine, list[ContractError]]:
    """The machine that is asked for, and everything that contradicts itself."""
    machine = Machine(
        firmware=_firmware(spec, extra),
        machine_type=spec.machine.machine_type,
        cpu_model=spec.machine.cpu_model,
        tpm=_tpm(spec, extra),
        watchdog_action=_watchdog_action(spec, extra),
        rng=_rng(spec, extra),
        graphics=_GRAPHICS.get(spec.machine.graphics),
        serial_ports=1 if extra.serial_port_count is None else extra.serial_port_count,
        guest_agent=not spec.machine.guest_agent_disabled,
        boot_menu=bool(extra.boot_menu),
        pmu=extra.pmu,
        hypervisor_hidden=bool(extra.hide_hypervisor_id),
    )
    return machine, _contradictions(spec, extra, machine)


def _firmware(spec: InstanceSpec, extra: ExtraSpecs) -> "spec_pb2.FirmwareType.ValueType":
    if spec.machine.firmware != spec_pb2.FIRMWARE_TYPE_UNSPECIFIED:
        return spec.machine.firmware
    if extra.secure_boot == "required":
        return spec_pb2.FIRMWARE_TYPE_UEFI_SECURE_BOOT
    return spec_pb2.FIRMWARE_TYPE_BIOS


def _tpm(spec: InstanceSpec, extra: ExtraSpecs) -> VirtualTpm | None:
    if not spec.machine.vtpm and extra.tpm_version is None:
        return None
    version = extra.tpm_version or "2.0"
    return VirtualTpm(
        model=extra.tpm_model or ("tpm-crb" if version == "2.0" else "tpm-tis"), version=version
    )


def _watchdog_action(spec: InstanceSpec, extra: ExtraSpecs) -> str | None:
    asked = _WATCHDOG_ACTIONS.get(spec.machine.watchdog) or extra.watchdog_action
    return None if asked == "disabled" else asked


def _rng(spec: InstanceSpec, extra: ExtraSpecs) -> RandomSource | None:
    if not (spec.machine.rng or extra.rng_allowed):
        return None
    return RandomSource(rate_bytes=extra.rng_rate_bytes, rate_period_ms=extra.rng_rate_period_ms)


def _contradictions(spec: InstanceSpec, extra: ExtraSpecs, machine: Machine) -> list[ContractError]:
    secure = machine.firmware == spec_pb2.FIRMWARE_TYPE_UEFI_SECURE_BOOT
    tpm = machine.tpm
    found = {
        "os:secure_boot": (
            (extra.secure_boot == "required" and not secure)
            or (extra.secure_boot == "disabled" and secure),
            "contradicts spec.machine.firmware",
        ),
        "hw:tpm_model": (
            (extra.tpm_model is not None and tpm is None)
            or (tpm is not None and tpm.version == "1.2" and tpm.model == "tpm-crb"),
            "needs hw:tpm_version, and a TPM 1.2 has no tpm-crb",
        ),
        "hw_rng:allowed": (
            spec.machine.rng and extra.rng_allowed is False,
            "forbids what spec.machine.rng asks for",
        ),
    }
    return [invalid_extra_spec(key, why) for key, (wrong, why) in found.items() if wrong]
