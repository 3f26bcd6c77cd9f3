"""Another flavor for an instance: what of it is refused before anything is changed.

Disks grow, they never shrink, and each keeps its name: what has the guest's data stays under
the name by which the guest knows it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import fields

from virtrpc.v1.spec_pb2 import Flavor, InstanceSpec

from backends.errors import (
    ContractError,
    InvalidArgumentError,
    UnsupportedError,
    WrongStateError,
)
from backends.plan import InstancePlan
from backends.plan.disks import PlannedDisk

_KEPT_ROLES = ("root", "ephemeral", "config")
# Extra specs by which other devices are made, not another size.
_OF_THE_MACHINE = (
    *("boot_menu", "pmu", "hide_hypervisor_id", "serial_port_count", "tpm_model", "tpm_version"),
    *("watchdog_action", "secure_boot", "rng_allowed", "rng_rate_bytes", "rng_rate_period_ms"),
)


def resized(spec: InstanceSpec, flavor: Flavor) -> InstanceSpec:
    """The specification in another flavor."""
    made = InstanceSpec()
    made.CopyFrom(spec)
    made.flavor.CopyFrom(flavor)
    return made


def resize_blockers(
    old: InstancePlan, new: InstancePlan, sizes: Mapping[str, int]
) -> Iterator[ContractError]:
    """What no host can make good; `sizes` are those of the disks as they are, by name."""
    yield from _shrink_blockers(old, new, sizes)
    yield from name_blockers(old, new)
    for one in fields(old.extra):
        changed = getattr(old.extra, one.name) != getattr(new.extra, one.name)
        if changed and one.name in _OF_THE_MACHINE:
            key = one.metadata["key"]
            why = f"the extra spec {key} makes another machine"
            yield UnsupportedError("resize_machine", why=why, field=f'flavor.extra_specs["{key}"]')


def _shrink_blockers(
    old: InstancePlan, new: InstancePlan, sizes: Mapping[str, int]
) -> Iterator[ContractError]:
    flavors = old.spec.flavor, new.spec.flavor
    for name in ("root_disk_gib", "ephemeral_disk_gib", "swap_mib"):
        before, after = (getattr(flavor, name) for flavor in flavors)
        if after < before:
            yield _shrink(name, f"{name} would be {after} instead of {before}")
    for disk in new.disks:
        now = sizes.get(disk.device_name, 0)
        grown = flavors[1].root_disk_gib >= flavors[0].root_disk_gib
        if disk.role == "root" and grown and 0 < disk.size_bytes < now:
            yield _shrink("root_disk_gib", f"the root disk has {now} bytes")


def _shrink(name: str, why: str) -> ContractError:
    return InvalidArgumentError(
        f"disks are not shrunk: {why}", reason="DISK_SHRINK", field=f"flavor.{name}"
    )


def name_blockers(old: InstancePlan, new: InstancePlan) -> Iterator[ContractError]:
    """That what the guest knows by a name keeps it."""
    kept = {_key(disk) for disk in new.disks}
    for disk in old.disks:
        if disk.role in _KEPT_ROLES and disk.volume is None and _key(disk) not in kept:
            why = f"the {disk.role} disk {disk.device_name} would get another name"
            yield WrongStateError(why, reason="DEVICE_NAME_CHANGES", field="flavor")


def _key(disk: PlannedDisk) -> tuple[str, str]:
    return disk.role, disk.device_name
