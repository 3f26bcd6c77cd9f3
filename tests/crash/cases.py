"""Every verb that is implemented: what comes before a call of it, and what it is called with.

The one table of them. Daemons are killed in those that change something (tests/crash), and
tests/conformance/test_every_verb.py calls each on every backend: well, again, only checked, for an
instance that does not exist, in a wrong state, and where the backend lacks it.

A verb that is new needs a line in CASES, if it changes something, else in READS.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from virtrpc.v1 import console_pb2, host_pb2, instance_pb2, migration_pb2, spec_pb2, types_pb2
from virtrpc.v1.spec_pb2 import InstanceSpec

from tests.images import guest_cmdline

Fields = Mapping[str, Any]
SOURCE = "source.raw"
EMPTY = "empty"  # a disk that nothing boots from: such a machine costs no time


@dataclass(frozen=True)
class Case:
    """One verb.

    Texts in `fields` may say {key}, unique to a run and the id of its instance, {turn}, which
    counts the cases that are tried on one instance, {sources}, a folder, and {operation}, the id
    of the newest operation of the instance.
    """

    verb: str
    before: Sequence["Case"] = ()
    """Verbs that bring the host to where this one is called."""
    fields: Fields = field(default_factory=dict)
    spec: Fields = field(default_factory=dict)
    """Of a spawn: what its specification has beyond the smallest; labels are faults of the fake."""
    name: str = ""
    wrong: Sequence["Case"] | None = None
    """Verbs that bring an instance to where this one is refused; empty: it never is. To be said
    of everything that changes an instance."""
    refusal: str = "WRONG_STATE"
    """With which reason it is refused there."""
    unknown: str = "INSTANCE_NOT_FOUND"
    """What is said of an instance that does not exist; empty: that is a success."""
    unknown_is_state: bool = False
    """It is said as FAILED_PRECONDITION: the call is about something else that is missing."""
    forbidden: str = ""
    """With which reason a daemon refuses it whose configuration says nothing of it."""
    after: Sequence["Case"] = ()
    """Verbs that take away what it leaves on the host, beside its instance and images."""
    more: Sequence[Fields] = ()
    """Messages after the first one, where the caller sends a stream."""
    alone: str = ""
    """With which reason it is refused on a host by itself, as here: it takes two. Called well it is
    in tests/conformance/test_live_migration.py and test_migration_steps.py, and in tests/lab."""

    def __str__(self) -> str:
        return self.name or self.verb


SPAWN = Case("SpawnInstance", wrong=(), unknown="")
SPAWN_WITH_DISK = Case("SpawnInstance", spec={"image": {"image_id": EMPTY}})
DESTROY = Case("DestroyInstance", [SPAWN], {"destroy_disks": True}, wrong=(), unknown="")
OFF = Case("PowerOffInstance", [SPAWN], {"timeout": {"seconds": 0}}, wrong=())
PAUSE = Case("PauseInstance", [SPAWN], wrong=[SPAWN, OFF])
IS_OFF = [SPAWN, OFF]
IS_PAUSED = [SPAWN, PAUSE]
KEPT_FILES = [SPAWN, Case("DestroyInstance")]
UNBOOTABLE = Case("SetInstanceBootable", [SPAWN], {"bootable": False}, wrong=())
SHARE = {"share_id": "5a3e0000-0000-4000-8000-000000000001"}
MOUNT = Case("MountShare", IS_OFF, {**SHARE, "tag": "share", "path": "{sources}"}, wrong=[SPAWN])
WITH_SHARE = [*IS_OFF, MOUNT]
IMAGE = {"image_id": "image-{key}"}
RAW = {"format": spec_pb2.DISK_FORMAT_RAW}
SUSPENDED = [SPAWN_WITH_DISK, Case("SuspendInstance")]
RESCUE = Case(
    "RescueInstance",
    [SPAWN_WITH_DISK],
    {"rescue_image_id": EMPTY, "admin_password": "secret"},
    wrong=SUSPENDED,
)
UNRESCUE = Case("UnrescueInstance", [SPAWN_WITH_DISK, RESCUE], wrong=())
SNAPSHOT = Case("SnapshotInstance", [SPAWN_WITH_DISK], IMAGE, wrong=[SPAWN], refusal="NO_ROOT_DISK")
REBUILD = Case(
    "RebuildInstance", [SPAWN_WITH_DISK], {"image": {"image_id": EMPTY}}, wrong=SUSPENDED
)
PULL = Case(
    "PullImage",
    fields={**IMAGE, "file": {"path": "{sources}/" + SOURCE}, "declared": RAW},
)
SOFT_DELETE = Case("SoftDeleteInstance", [SPAWN], wrong=())
SUSPEND = Case("SuspendInstance", [SPAWN], wrong=())
RESUME = Case("ResumeInstance", [SPAWN, SUSPEND], wrong=IS_OFF)
VOLUME = {"volume_id": "{key}"}
OWN_FILE = {**VOLUME, "local_file": {"path": "{sources}/{key}"}}
NEW_FILE = {**VOLUME, "local_file": {"path": "{sources}/{key}.new"}}
ATTACH_VOLUME = Case(
    "AttachVolume", [SPAWN], {"device": {"volume": OWN_FILE}}, wrong=[SPAWN, SUSPEND]
)
WITH_VOLUME = [SPAWN, ATTACH_VOLUME]
VOLUME_SNAPSHOT = {**VOLUME, "snapshot_id": "{key}"}
TAKE_SNAPSHOT = Case(
    "CreateVolumeSnapshot", WITH_VOLUME, VOLUME_SNAPSHOT, wrong=[*WITH_VOLUME, SUSPEND]
)
FOREIGN = Case("SpawnInstance", spec={"labels": {"fake/foreign": "yes"}})
AGGREGATE = {"aggregate_id": "{key}"}
ADD = Case(
    "AddToAggregate",
    fields={**AGGREGATE, "metadata": {"zone": "z1"}},
    after=[Case("RemoveFromAggregate", fields=AGGREGATE)],
)
UNDO_ADDITION = {**AGGREGATE, "operation": host_pb2.AGGREGATE_OPERATION_ADD}
# No file of the book has the instance's id in its name.
MIGRATION = {"migration_id": "{key:.24}{turn:012x}"}
NOWHERE = {"destination_uri": "unix:/nonexistent/virtrpc.sock"}
MIGRATION_DATA = {
    **MIGRATION,
    "instance_id": "{key}",
    "kind": migration_pb2.MIGRATION_KIND_LIVE,
    "source": {"host_name": "elsewhere"},
    "storage": migration_pb2.MIGRATION_STORAGE_COPY,
}
ARRIVAL = Case(
    "PrepareDestination",
    fields={
        **MIGRATION,
        "data": MIGRATION_DATA,
        "spec": {
            "flavor": {"vcpus": 1, "memory_mib": 96},
            "image": {"kernel_image_id": "kernel", "ramdisk_image_id": "ramdisk"},
        },
    },
    wrong=(),
    unknown="",
)
LARGER = {"flavor": {"vcpus": 2, "memory_mib": 96, "swap_mib": 2}}
# On one host: so there is nobody to be asked.
COLD_DATA = {
    **MIGRATION_DATA,
    "kind": migration_pb2.MIGRATION_KIND_COLD,
    "storage": migration_pb2.MIGRATION_STORAGE_UNSPECIFIED,
    "released": True,
}
RESIZE = Case(
    "MigrateDiskAndPowerOff",
    [SPAWN],
    {**MIGRATION, **LARGER, "timeout": {"seconds": 0}},
    wrong=[SPAWN, SUSPEND],
)
FINISH = Case(
    "FinishMigration",
    [SPAWN, RESIZE],
    {**MIGRATION, "data": COLD_DATA, "power_on": True},
    wrong=[SPAWN],
    refusal="NOT_PREPARED",
    unknown="NOT_PREPARED",
    unknown_is_state=True,
)
CONFIRM = Case(
    "ConfirmMigration",
    [SPAWN, RESIZE, FINISH],
    MIGRATION,
    wrong=[SPAWN, RESIZE],
    refusal="NOT_FINISHED",
    unknown="MIGRATION_NOT_FOUND",
)
REVERT = Case(
    "RevertMigration",
    [SPAWN, RESIZE, FINISH],
    {**MIGRATION, "power_on": True},
    wrong=[SPAWN, RESIZE, FINISH, CONFIRM],
    refusal="CONFIRMED",
    unknown="MIGRATION_NOT_FOUND",
)
DISK = {
    "device_name": "vda",
    "role": "swap",
    "format": spec_pb2.DISK_FORMAT_RAW,
    "storage": migration_pb2.MIGRATION_STORAGE_COPY,
    "virtual_size_bytes": 1 << 20,
}
COLD_ARRIVAL = Case(
    "PrepareDestination",
    fields={
        **ARRIVAL.fields,
        "data": {
            **MIGRATION_DATA,
            "kind": migration_pb2.MIGRATION_KIND_COLD,
            "source": {"host_name": "elsewhere", "disks": [DISK]},
            "disks": [DISK],
        },
        "spec": {**ARRIVAL.fields["spec"], "flavor": LARGER["flavor"] | {"swap_mib": 1}},
    },
    name="preparation of a cold migration",
)
OPEN_DISK = {**MIGRATION, "instance_id": "{key}", "disk": DISK, "file_bytes": 1 << 20}
ZEROS_SHA256 = hashlib.sha256(bytes(1 << 20)).hexdigest()
MARK = {"mark": {"file_name": ".virtrpc-shared-0", "content": "0123456789abcdef"}}
NIC = {"port_id": "{key}", "user": {}}
ATTACH = Case(
    "AttachInterface", [SPAWN], {"interface": NIC}, wrong=[SPAWN, Case("SuspendInstance")]
)
PREPARE = Case("PrepareNetworks", fields={"interfaces": [NIC]}, wrong=[SPAWN], unknown="")
GROUP = {"security_group": {"security_group_id": "{key}"}}
CASES = (
    SPAWN,
    DESTROY,
    PAUSE,
    Case("UnpauseInstance", IS_PAUSED, wrong=IS_OFF),
    OFF,
    Case("PowerOnInstance", IS_OFF, wrong=IS_PAUSED),
    Case(
        "RebootInstance",
        [SPAWN],
        {"type": instance_pb2.REBOOT_TYPE_HARD},
        wrong=[SPAWN, UNBOOTABLE],
        refusal="NOT_BOOTABLE",
    ),
    Case("SuspendInstance", [SPAWN], wrong=IS_OFF),
    RESUME,
    Case(
        "ResumeInstanceOnHostBoot",
        IS_OFF,
        {"power_state": types_pb2.POWER_STATE_RUNNING},
        wrong=(),
    ),
    UNBOOTABLE,
    SOFT_DELETE,
    Case("RestoreInstance", [SPAWN, Case("SoftDeleteInstance")], wrong=()),
    Case("UpdateInstanceMetadata", [SPAWN], {"set": {"key": "value"}}, wrong=()),
    Case("TriggerCrashDump", [SPAWN], wrong=IS_OFF),
    Case("SetAdminPassword", [SPAWN], {"password": "secret"}, wrong=IS_PAUSED),
    Case("InjectFile", [SPAWN], {"path": "/file", "content": b"content"}, wrong=IS_PAUSED),
    Case("InjectNetworkInfo", [SPAWN], wrong=IS_PAUSED),
    Case("ResetInstanceNetwork", [SPAWN], wrong=IS_PAUSED),
    Case("QuiesceInstance", [SPAWN], wrong=IS_PAUSED),
    Case("UnquiesceInstance", [SPAWN, Case("QuiesceInstance")], wrong=IS_PAUSED),
    Case("CleanupInstance", KEPT_FILES, {"destroy_disks": True}, wrong=[SPAWN], unknown=""),
    Case("DeleteInstanceFiles", KEPT_FILES, wrong=[SPAWN], unknown=""),
    MOUNT,
    Case("UmountShare", WITH_SHARE, SHARE, wrong=[*WITH_SHARE, Case("PowerOnInstance"), PAUSE]),
    Case("PollRebootingInstances", fields={"timeout": {"seconds": 3600}}),
    ATTACH_VOLUME,
    Case("DetachVolume", [*IS_OFF, ATTACH_VOLUME], VOLUME, wrong=[*WITH_VOLUME, PAUSE]),
    Case(
        "ExtendVolume",
        WITH_VOLUME,
        {**VOLUME, "size_bytes": 4 << 20},
        wrong=[*WITH_VOLUME, SUSPEND],
    ),
    Case(
        "SwapVolume",
        WITH_VOLUME,
        {"old_volume_id": "{key}", "new_volume": NEW_FILE},
        wrong=[*IS_OFF, ATTACH_VOLUME],
    ),
    TAKE_SNAPSHOT,
    Case(
        "DeleteVolumeSnapshot",
        [*WITH_VOLUME, TAKE_SNAPSHOT],
        VOLUME_SNAPSHOT,
        wrong=[*IS_OFF, ATTACH_VOLUME, TAKE_SNAPSHOT],
    ),
    Case("GetConsole", [SPAWN], {"type": console_pb2.CONSOLE_TYPE_SERIAL}, wrong=IS_OFF),
    Case("ImportInstance", [FOREIGN], wrong=()),
    Case("SetHostEnabled", fields={"enabled": True}),
    Case("SetMaintenanceMode", fields={"maintenance": False}),
    Case(
        "HostPowerAction",
        fields={"action": host_pb2.HOST_POWER_REBOOT, "force": True},
        forbidden="HOST_POWER_NOT_ALLOWED",
    ),
    ADD,
    Case("RemoveFromAggregate", [ADD], AGGREGATE),
    Case("UndoAggregateOperation", [ADD], UNDO_ADDITION),
    ATTACH,
    Case(
        "DetachInterface",
        [SPAWN, ATTACH],
        # A guest that has just booted may not hear it at first.
        {"port_id": "{key}", "retry_interval": {"seconds": 1}},
        wrong=[SPAWN, ATTACH, PAUSE],
    ),
    Case("PlugInterfaces", [SPAWN], wrong=()),
    Case("UnplugInterfaces", wrong=[SPAWN, ATTACH], unknown=""),
    PREPARE,
    Case("CleanNetworksPreparation", [PREPARE], wrong=(), unknown=""),
    Case("RefreshSecurityGroup", fields=GROUP),
    Case("RefreshInstanceSecurityRules", [SPAWN], wrong=()),
    Case("EnsureFilteringRules", [SPAWN], wrong=()),
    Case("UnfilterInstance", wrong=[SPAWN], unknown=""),
    Case("DeferFiltering"),
    Case("ApplyFiltering"),
    RESCUE,
    UNRESCUE,
    SNAPSHOT,
    REBUILD,
    Case("PollRescuedInstances", fields={"timeout": {"seconds": 3600}}),
    PULL,
    Case("DeleteImage", [PULL], IMAGE),
    Case("ManageImageCache", fields={"max_unused_age": {"seconds": 86400}}),
    Case(
        "LiveMigrateInstance",
        [SPAWN],
        {**MIGRATION, **NOWHERE},
        wrong=IS_OFF,
        alone="PEER_UNREACHABLE",
    ),
    Case(
        "AbortLiveMigration",
        [SPAWN],
        wrong=[SPAWN],
        refusal="NO_MIGRATION",
        alone="NO_MIGRATION",
    ),
    Case(
        "ForceCompleteLiveMigration",
        [SPAWN],
        wrong=[SPAWN],
        refusal="NO_MIGRATION",
        alone="NO_MIGRATION",
    ),
    Case(
        "CompleteSource",
        [SPAWN],
        {**MIGRATION, "data": MIGRATION_DATA},
        wrong=[SPAWN],
        refusal="NOT_SWITCHED",
        alone="NOT_SWITCHED",
    ),
    Case(
        "CompleteDestination",
        [ARRIVAL],
        {**MIGRATION, "data": MIGRATION_DATA},
        wrong=[SPAWN],
        refusal="NOT_SWITCHED",
        alone="NOT_SWITCHED",
    ),
    ARRIVAL,
    Case("RollbackDestination", [ARRIVAL], MIGRATION, wrong=(), unknown=""),
    Case("CleanupDestinationCheck", fields=MIGRATION, wrong=(), unknown=""),
    RESIZE,
    FINISH,
    CONFIRM,
    REVERT,
    Case("CheckSharedStorageLocal", wrong=(), unknown=""),
    Case("CleanupSharedStorageCheck", fields=MARK, wrong=(), unknown=""),
)
READS = (
    Case("GetVolumeConnector", unknown=""),
    Case("AssignDeviceNames", unknown=""),
    Case("CheckFilesystemSupport", fields={"filesystem": "ext4"}),
    Case("CompareCpu", fields={"cpu": {"architecture": "x86_64"}}),
    Case("CheckDestination", fields={"source": {"host_name": "elsewhere"}}, unknown=""),
    Case(
        "CheckSource",
        [SPAWN],
        {**MIGRATION, **NOWHERE, "check": {"host_name": "elsewhere"}},
    ),
    Case("CheckSharedStorageRemote", [SPAWN], MARK, unknown=""),
    Case(
        "ReceiveDisk",
        [COLD_ARRIVAL],
        {"open": OPEN_DISK},
        more=[{"finish": {"sha256": ZEROS_SHA256}}],
    ),
    Case("WatchMigration", [ARRIVAL], unknown="MIGRATION_NOT_FOUND"),
    Case("GetInstance", [SPAWN], {"fresh": True}),
    Case("ListInstances"),
    Case("CheckInstanceOnDisk", [SPAWN], unknown=""),
    Case("GetInstanceDiagnostics", [SPAWN], {"fresh": True}),
    Case("GetInstanceDiskInfo", [SPAWN]),
    Case("GetBlockStats", [SPAWN], {"device_name": "vda", "fresh": True}, wrong=IS_OFF),
    Case("ListBandwidthCounters", [SPAWN], {"instance_ids": ["{key}"]}),
    Case("ListVolumeUsage", [SPAWN], {"instance_ids": ["{key}"]}),
    Case("ListInstanceUsage", [SPAWN], {"instance_ids": ["{key}"]}),
    Case("ExplainInstance", [SPAWN]),
    Case("GetHost"),
    Case("GetCapabilities"),
    Case("GetAvailableResource"),
    Case("GetInventory"),
    Case("ListNodes"),
    Case("EstimateInstanceOverhead", fields={"flavor": {"vcpus": 1, "memory_mib": 96}}),
    Case("ListImages"),
    Case("GetInterfacePolicy", unknown=""),
    Case("UploadImage", fields={"header": {**IMAGE, "declared": RAW}}, more=[{"chunk": b"bytes"}]),
    Case("DownloadImage", [PULL], IMAGE),
    Case("GetConsoleOutput", [SPAWN]),
    Case("StreamConsoleOutput", [SPAWN], {"now": True}),
    Case("AttachConsole", [SPAWN], {"open": {"instance_id": "{key}"}}),
    Case(
        "TunnelConsole",
        [SPAWN],
        {"open": {"instance_id": "{key}", "type": console_pb2.CONSOLE_TYPE_VNC}},
        wrong=IS_OFF,
    ),
    Case("WatchEvents", fields={"snapshot": True}),
    Case("GetOperation", [SPAWN], {"operation_id": "{operation}"}),
    Case("ListOperations", unknown=""),
    Case("WaitOperation", [SPAWN], {"operation_id": "{operation}"}),
    Case("WatchOperation", [SPAWN], {"operation_id": "{operation}"}),
    Case("CancelOperation", [SPAWN], {"operation_id": "{operation}"}),
)
FAILING_CASES = (
    Case(
        "SpawnInstance",
        spec={"labels": {"fake/spawn_instance.start": "fail"}},
        name="spawn that fails",
    ),
    Case(
        "DestroyInstance",
        [Case("SpawnInstance", spec={"labels": {"fake/destroy_instance.files": "fail"}})],
        {"destroy_disks": True},
        name="destroy that fails",
    ),
)


def small_spec(backend: str, instance_id: str, more: Fields | None = None) -> InstanceSpec:
    """The smallest guest that boots, with a disk and a screen: 96 MiB, 1 MiB of swap.

    One with an image boots nothing else.
    """
    spec = InstanceSpec(**{"name": f"crash-{instance_id[:8]}", **(more or {})})
    spec.flavor.vcpus, spec.flavor.memory_mib, spec.flavor.swap_mib = 1, 96, 1
    if spec.image.image_id:
        return spec
    spec.image.kernel_image_id, spec.image.ramdisk_image_id = "kernel", "ramdisk"
    spec.image.kernel_args = "console=ttyS0"
    spec.machine.graphics = spec_pb2.GRAPHICS_TYPE_VNC
    if backend == "libvirt":
        # It never falls silent.
        spec.image.kernel_args = f"{guest_cmdline()} virtrpc.counter=1"
    return spec
