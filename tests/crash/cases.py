"""The verbs to die in: what comes before each, and what it is called with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from virtrpc.v1 import instance_pb2
from virtrpc.v1.spec_pb2 import InstanceSpec

from tests.images import guest_cmdline


@dataclass(frozen=True)
class Case:
    """One verb: `before` are the verbs that bring an instance to where it is called."""

    verb: str
    before: Sequence[str] = ()
    fields: Mapping[str, Any] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    """Labels of the instance: faults of the fake."""
    name: str = ""

    def __str__(self) -> str:
        return self.name or self.verb


CASES = (
    Case("SpawnInstance"),
    Case("DestroyInstance", ("SpawnInstance",), {"destroy_disks": True}),
    Case("PauseInstance", ("SpawnInstance",)),
    Case("UnpauseInstance", ("SpawnInstance", "PauseInstance")),
    Case("PowerOffInstance", ("SpawnInstance",)),
    Case("PowerOnInstance", ("SpawnInstance", "PowerOffInstance")),
    Case("RebootInstance", ("SpawnInstance",), {"type": instance_pb2.REBOOT_TYPE_HARD}),
    Case("CleanupInstance", ("SpawnInstance", "DestroyInstance"), {"destroy_disks": True}),
    Case("DeleteInstanceFiles", ("SpawnInstance", "DestroyInstance")),
)
FAILING_CASES = (
    Case("SpawnInstance", labels={"fake/spawn_instance.start": "fail"}, name="spawn that fails"),
    Case(
        "DestroyInstance", ("SpawnInstance",), {"destroy_disks": True},
        {"fake/destroy_instance.files": "fail"}, name="destroy that fails",
    ),
)  # fmt: skip


def small_spec(
    backend: str, instance_id: str, labels: Mapping[str, str] | None = None
) -> InstanceSpec:
    """The smallest guest that boots: kernel and ramdisk, 96 MiB."""
    spec = InstanceSpec(name=f"crash-{instance_id[:8]}", labels=labels)
    spec.flavor.vcpus, spec.flavor.memory_mib = 1, 96
    spec.image.kernel_image_id, spec.image.ramdisk_image_id = "kernel", "ramdisk"
    spec.image.kernel_args = "console=ttyS0"
    if backend == "libvirt":
        # It never falls silent.
        spec.image.kernel_args = f"{guest_cmdline()} virtrpc.counter=1"
    return spec
