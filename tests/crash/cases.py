"""The verbs to die in: what comes before each, and what it is called with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from virtrpc.v1 import console_pb2, instance_pb2, spec_pb2, types_pb2
from virtrpc.v1.spec_pb2 import InstanceSpec

from tests.images import guest_cmdline

Fields = Mapping[str, Any]
SOURCE = "source.raw"


@dataclass(frozen=True)
class Case:
    """One verb. Texts in `fields` may say {key}, unique to a run, and {sources}, a folder."""

    verb: str
    before: Sequence["Case"] = ()
    """Verbs that bring the host to where this one is called."""
    fields: Fields = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    """Labels of the instance: faults of the fake."""
    name: str = ""

    def __str__(self) -> str:
        return self.name or self.verb


SPAWN = Case("SpawnInstance")
DESTROY = Case("DestroyInstance", [SPAWN], {"destroy_disks": True})
OFF = Case("PowerOffInstance", [SPAWN], {"timeout": {"seconds": 0}})
KEPT_FILES = [SPAWN, Case("DestroyInstance")]
IMAGE = {"image_id": "image-{key}"}
PULL = Case(
    "PullImage",
    fields={
        **IMAGE,
        "file": {"path": "{sources}/" + SOURCE},
        "declared": {"format": spec_pb2.DISK_FORMAT_RAW},
    },
)
CASES = (
    SPAWN,
    DESTROY,
    Case("PauseInstance", [SPAWN]),
    Case("UnpauseInstance", [SPAWN, Case("PauseInstance")]),
    OFF,
    Case("PowerOnInstance", [SPAWN, OFF]),
    Case("RebootInstance", [SPAWN], {"type": instance_pb2.REBOOT_TYPE_HARD}),
    Case("SuspendInstance", [SPAWN]),
    Case("ResumeInstance", [SPAWN, Case("SuspendInstance")]),
    Case("ResumeInstanceOnHostBoot", [SPAWN, OFF], {"power_state": types_pb2.POWER_STATE_RUNNING}),
    Case("SetInstanceBootable", [SPAWN], {"bootable": False}),
    Case("SoftDeleteInstance", [SPAWN]),
    Case("RestoreInstance", [SPAWN, Case("SoftDeleteInstance")]),
    Case("UpdateInstanceMetadata", [SPAWN], {"set": {"key": "value"}}),
    Case("TriggerCrashDump", [SPAWN]),
    Case("SetAdminPassword", [SPAWN], {"password": "secret"}),
    Case("InjectFile", [SPAWN], {"path": "/file", "content": b"content"}),
    Case("InjectNetworkInfo", [SPAWN]),
    Case("ResetInstanceNetwork", [SPAWN]),
    Case("QuiesceInstance", [SPAWN]),
    Case("UnquiesceInstance", [SPAWN, Case("QuiesceInstance")]),
    Case("CleanupInstance", KEPT_FILES, {"destroy_disks": True}),
    Case("DeleteInstanceFiles", KEPT_FILES),
    Case("PollRebootingInstances", fields={"timeout": {"seconds": 3600}}),
    Case("GetConsole", [SPAWN], {"type": console_pb2.CONSOLE_TYPE_SERIAL}),
    PULL,
    Case("DeleteImage", [PULL], IMAGE),
    Case("ManageImageCache", fields={"max_unused_age": {"seconds": 86400}}),
)
FAILING_CASES = (
    Case(
        "SpawnInstance",
        labels={"fake/spawn_instance.start": "fail"},
        name="spawn that fails",
    ),
    Case(
        "DestroyInstance",
        [Case("SpawnInstance", labels={"fake/destroy_instance.files": "fail"})],
        {"destroy_disks": True},
        name="destroy that fails",
    ),
)


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
