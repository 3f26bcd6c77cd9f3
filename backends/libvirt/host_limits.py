"""Choices of a specification that not every host's QEMU has: machine type, CPU, TPM model."""

from collections.abc import Iterator

from virtrpc.v1 import spec_pb2

from backends.errors import ContractError, UnsupportedError
from backends.libvirt.blueprint.cpus import CPU_MODES
from backends.libvirt.probe import Probed
from backends.plan import InstancePlan
from backends.plan.extra_specs import extra_spec_field


def host_limits(plan: InstancePlan, probed: Probed) -> Iterator[ContractError]:
    """What of a plan the hypervisor here does not have; nothing is known of test drivers."""
    if not probed.machine_types:
        return
    machine = plan.machine
    if machine.machine_type and machine.machine_type not in probed.machine_types:
        why = f"QEMU has no machine {machine.machine_type}"
        yield UnsupportedError("machine_type", why=why, field="spec.machine.machine_type")
    elif _lacks_secure_boot(plan):
        why = "secure boot needs a q35 machine"
        yield UnsupportedError("secure_boot", why=why, field="spec.machine.machine_type")
    known = probed.guests.cpu_modes if machine.cpu_model in CPU_MODES else probed.guests.cpu_models
    if machine.cpu_model and machine.cpu_model not in known:
        why = f"{probed.virt_type} guests cannot have {machine.cpu_model} on this host"
        yield UnsupportedError("cpu_model", why=why, field="spec.machine.cpu_model")
    if machine.tpm is not None and machine.tpm.model not in probed.guests.tpm_models:
        why = f"QEMU has no {machine.tpm.model}"
        yield UnsupportedError("vtpm", why=why, field=extra_spec_field("hw:tpm_model"))


def _lacks_secure_boot(plan: InstancePlan) -> bool:
    """Only q35 has the system management mode that keeps the keys from the guest."""
    secure = plan.machine.firmware == spec_pb2.FIRMWARE_TYPE_UEFI_SECURE_BOOT
    return secure and bool(plan.machine.machine_type) and "q35" not in plan.machine.machine_type
