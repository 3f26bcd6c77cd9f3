"""Nova's extra specs of a flavor: which there are, and what they say.

Source: "Extra Specs" in Nova's configuration reference. Keys of the scopes "hw"
and "os" that it does not know are refused, those of other scopes ignored; the few
of those that matter here ("hw_rng") are read.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from backends.errors import ContractError, InvalidArgumentError, UnsupportedError
from backends.plan.extra_spec_values import (
    CpuSet,
    Reader,
    count,
    cpu_set,
    flag,
    page_size,
    word,
)

_CHECKED_SCOPES = ("hw:", "os:")
_text: Reader[str] = str


def _key(name: str, read: Reader[Any]) -> Any:
    return field(default=None, metadata={"key": name, "read": read})


def _numbered(name: str, read: Reader[Any]) -> Any:
    """A family of keys that end in a number: a mapping from it."""
    return field(default_factory=dict, metadata={"key": name, "read": read, "numbered": True})


@dataclass(frozen=True, kw_only=True)
class ExtraSpecs:
    """The extra specs that are carried out; None where one is not given."""

    cpu_policy: str | None = _key("hw:cpu_policy", word("shared", "dedicated", "mixed"))
    cpu_dedicated_mask: CpuSet | None = _key("hw:cpu_dedicated_mask", cpu_set)
    cpu_thread_policy: str | None = _key(
        "hw:cpu_thread_policy", word("prefer", "isolate", "require")
    )
    emulator_threads_policy: str | None = _key(
        "hw:emulator_threads_policy", word("isolate", "share")
    )
    cpu_sockets: int | None = _key("hw:cpu_sockets", count())
    cpu_cores: int | None = _key("hw:cpu_cores", count())
    cpu_threads: int | None = _key("hw:cpu_threads", count())
    max_cpu_sockets: int | None = _key("hw:max_cpu_sockets", count())
    max_cpu_cores: int | None = _key("hw:max_cpu_cores", count())
    max_cpu_threads: int | None = _key("hw:max_cpu_threads", count())
    numa_nodes: int | None = _key("hw:numa_nodes", count(most=64))
    numa_cpus: Mapping[int, CpuSet] = _numbered("hw:numa_cpus", cpu_set)
    numa_mem: Mapping[int, int] = _numbered("hw:numa_mem", count())
    mem_page_size: str | int | None = _key("hw:mem_page_size", page_size)
    boot_menu: bool | None = _key("hw:boot_menu", flag)
    pmu: bool | None = _key("hw:pmu", flag)
    hide_hypervisor_id: bool | None = _key("hw:hide_hypervisor_id", flag)
    serial_port_count: int | None = _key("hw:serial_port_count", count(0, 4))
    tpm_model: str | None = _key("hw:tpm_model", word("tpm-tis", "tpm-crb"))
    tpm_version: str | None = _key("hw:tpm_version", word("1.2", "2.0"))
    watchdog_action: str | None = _key(
        "hw:watchdog_action", word("none", "pause", "poweroff", "reset", "disabled")
    )
    secure_boot: str | None = _key("os:secure_boot", word("disabled", "required"))
    rng_allowed: bool | None = _key("hw_rng:allowed", flag)
    rng_rate_bytes: int | None = _key("hw_rng:rate_bytes", count())
    rng_rate_period_ms: int | None = _key("hw_rng:rate_period", count())


# Known, and carried out by no backend: refused where the value asks for something.
_NOT_CARRIED_OUT: Mapping[str, tuple[Reader[Any], str]] = {
    "hw:cpu_realtime": (flag, "cpu_realtime"),
    "hw:cpu_realtime_mask": (cpu_set, "cpu_realtime"),
    "hw:ephemeral_encryption": (flag, "ephemeral_encryption"),
    "hw:ephemeral_encryption_format": (_text, "ephemeral_encryption"),
    "hw:locked_memory": (flag, "locked_memory"),
    "hw:maxphysaddr_bits": (count(), "cpu_address_width"),
    "hw:maxphysaddr_mode": (word("passthrough", "emulate"), "cpu_address_width"),
    "hw:mem_encryption": (flag, "memory_encryption"),
    "hw:mem_encryption_model": (_text, "memory_encryption"),
    "hw:pci_numa_affinity_policy": (word("required", "preferred", "legacy", "socket"), "sriov"),
    "hw:pmem": (_text, "persistent_memory"),
    "hw:redirected_usb_ports": (count(0), "usb_redirection"),
    "hw:sound_model": (_text, "sound"),
    "hw:tpm_secret_security": (_text, "vtpm_secret_security"),
    "hw:usb_model": (_text, "usb_model"),
    "hw:vif_multiqueue_enabled": (flag, "interface_multiqueue"),
    "hw:viommu_model": (_text, "viommu"),
    "hw:virtio_packed_ring": (flag, "virtio_packed_ring"),
}


def extra_spec_field(key: str) -> str:
    """Path of an extra spec in a spawn request."""
    return f'spec.flavor.extra_specs["{key}"]'


def invalid_extra_spec(key: str, why: str) -> InvalidArgumentError:
    """What is said of an extra spec that cannot be meant."""
    return InvalidArgumentError(
        f"extra spec {key}: {why}", field=extra_spec_field(key), reason="EXTRA_SPEC_INVALID"
    )


def read_extra_specs(given: Mapping[str, str]) -> tuple[ExtraSpecs, list[ContractError]]:
    """The extra specs of a flavor, and everything that is wrong with them."""
    values: dict[str, Any] = {}
    errors: list[ContractError] = []
    for key, text in sorted(given.items()):
        try:
            _read_one(key, text, values)
        except ContractError as error:
            errors.append(error)
    return ExtraSpecs(**values), errors


def _read_one(key: str, text: str, values: dict[str, Any]) -> None:
    declared = _declared(key)
    if declared is not None:
        name, read, number = declared
        value = _value(key, text, read)
        if number is None:
            values[name] = value
        else:
            values.setdefault(name, {})[number] = value
    elif key in _NOT_CARRIED_OUT:
        _refuse_if_asked(key, text)
    elif key.startswith(_CHECKED_SCOPES):
        raise InvalidArgumentError(
            f"extra spec {key} is not known",
            field=extra_spec_field(key),
            reason="EXTRA_SPEC_UNKNOWN",
        )


def _declared(key: str) -> tuple[str, Reader[Any], int | None] | None:
    """Attribute, reader and number of a key that is carried out."""
    for declared in fields(ExtraSpecs):
        about = declared.metadata
        if about.get("numbered"):
            found = re.fullmatch(rf"{re.escape(about['key'])}\.([0-9]{{1,2}})", key)
            if found:
                return declared.name, about["read"], int(found[1])
        elif about["key"] == key:
            return declared.name, about["read"], None
    return None


def _value(key: str, text: str, read: Reader[Any]) -> Any:
    try:
        return read(text)
    except ValueError as error:
        raise invalid_extra_spec(key, f"must be {error}") from None


def _refuse_if_asked(key: str, text: str) -> None:
    read, capability = _NOT_CARRIED_OUT[key]
    if _value(key, text, read):
        raise UnsupportedError(
            capability, why=f"{key} is not carried out", field=extra_spec_field(key)
        )
